#include "core.h"

PyObject *call_twin(PyObject *twin, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Py_ssize_t first = self != NULL;
    PyObject *result = NULL, *options = NULL, *positional = PyTuple_New(first + count);
    if (positional == NULL)
        return NULL;
    if (self != NULL) {
        Py_INCREF(self);
        PyTuple_SetItem(positional, 0, self);
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_INCREF(args[i]);
        PyTuple_SetItem(positional, first + i, args[i]);
    }
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    if (named > 0 && (options = PyDict_New()) == NULL)
        goto done;
    for (Py_ssize_t i = 0; i < named; i++)
        if (PyDict_SetItem(options, PyTuple_GetItem(names, i), args[count + i]) < 0)
            goto done;
    Py_INCREF(twin); /* it may name another one in its stead */
    result = PyObject_Call(twin, positional, options);
    Py_DECREF(twin);
done:
    Py_XDECREF(options);
    Py_DECREF(positional);
    return result;
}

bool whole(PyObject *number, int64_t *value)
{
    int overflow = 0;
    if (!PyLong_CheckExact(number))
        return false;
    *value = PyLong_AsLongLongAndOverflow(number, &overflow);
    return overflow == 0;
}

int check_count(Py_ssize_t got, Py_ssize_t expected, const char *name)
{
    if (got == expected)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, got %zd", name, expected, got);
    return -1;
}

bool intern_names(PyObject **interned, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (interned[i] == NULL && (interned[i] = PyUnicode_InternFromString(names[i])) == NULL)
            return false;
    return true;
}

Py_ssize_t name_at(PyObject *name, PyObject *const *interned, int count)
{
    for (int i = 0; i < count; i++)
        if (name == interned[i])
            return i;
    return -1;
}

int add_type(PyObject *module, PyType_Spec *spec, PyObject **kept)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    if (!failed && kept != NULL)
        *kept = type;
    else
        Py_DECREF(type);
    return failed;
}

void *checked(PyObject *object, PyObject *type)
{
    /* By its own type: to isinstance, which asks its __class__, a mock is what it stands for. */
    if (PyObject_TypeCheck(object, (PyTypeObject *)type))
        return object;
    PyErr_Format(PyExc_TypeError, "must be a %R, got a %R", type, (PyObject *)Py_TYPE(object));
    return NULL;
}
