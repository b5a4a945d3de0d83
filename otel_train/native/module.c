/* The module: its version and what each file adds to it. */
#include "core.h"

/* The number in __init__.py must be the same: a build of other sources is not used. */
#define CORE_VERSION 12

static int fill(PyObject *module)
{
    Types *types = PyModule_GetState(module);
    if (PyModule_AddIntConstant(module, "VERSION", CORE_VERSION) < 0)
        return -1;
    if (add_meter(module, types) < 0 || add_record(module, types) < 0 || add_interval(module, types) < 0)
        return -1;
    if (add_step(module, types) < 0 || add_ledger(module) < 0 || add_ids(module) < 0)
        return -1;
    if (add_reduction(module) < 0 || add_columns(module) < 0 || add_history(module) < 0 || add_series(module) < 0)
        return -1;
    if (add_row_text(module) < 0 || add_bets(module) < 0)
        return -1;
    return add_signals(module);
}

static int traverse(PyObject *module, visitproc visit, void *arg)
{
    Types *types = PyModule_GetState(module);
    Py_VISIT(types->picks);
    Py_VISIT(types->clock);
    Py_VISIT(types->ring);
    Py_VISIT(types->interval);
    return 0;
}

static int clear(PyObject *module)
{
    Types *types = PyModule_GetState(module);
    Py_CLEAR(types->picks);
    Py_CLEAR(types->clock);
    Py_CLEAR(types->ring);
    Py_CLEAR(types->interval);
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_core",
    .m_doc = "What runs at each step, in C; otel_train.native chooses between it and its twins in Python.",
    .m_size = sizeof(Types),
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
