/* The module: its version and what each file adds to it. */
#include "core.h"

/* The number in __init__.py must be the same: a build of other sources is not used. */
#define CORE_VERSION 1

static int fill(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "VERSION", CORE_VERSION) < 0)
        return -1;
    return add_meter(module) < 0 || add_ledger(module) < 0 || add_reduction(module) < 0 ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_core",
    .m_doc = "What runs at each step, in C; otel_train.native chooses between it and its twins in Python.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
