#include "core.h"

int numbers_take(Numbers *numbers, PyObject *owner, char format, Py_ssize_t least)
{
    Py_ssize_t size = format == 'B' ? 1 : 8;
    Py_buffer view;
    if (PyObject_GetBuffer(owner, &view, PyBUF_WRITABLE | PyBUF_FORMAT | PyBUF_ND) < 0)
        return -1;
    const char *given = view.format == NULL ? "B" : view.format;
    /* A view of a part may begin anywhere; a number in C may not. (An empty array says that it begins anywhere.) */
    bool aligned = view.len == 0 || (uintptr_t)view.buf % (uintptr_t)size == 0;
    bool fits = view.itemsize == size && given[0] == format && given[1] == '\0' && view.ndim <= 1 && aligned;
    if (!fits || view.len / size < least) {
        PyErr_Format(PyExc_ValueError,
                     "must be a buffer of at least %zd aligned elements of format '%c', got %zd bytes of '%s'", least,
                     (int)format, view.len, given);
        PyBuffer_Release(&view);
        return -1;
    }
    numbers_release(numbers);
    numbers->count = view.len / size;
    if (view.len == 0) { /* not held: Python refuses to write no elements to an array that is */
        PyBuffer_Release(&view);
        numbers->bytes = numbers; /* never read; functions of C's want no NULL */
        return 0;
    }
    numbers->view = view;
    numbers->bytes = view.buf;
    return 0;
}

void numbers_release(Numbers *numbers)
{
    numbers->bytes = NULL;
    numbers->count = 0;
    PyBuffer_Release(&numbers->view); /* nothing where none is held */
}

PyObject *list_of(const double *numbers, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *number = PyFloat_FromDouble(numbers[i]);
        if (number == NULL || PyList_SetItem(list, i, number) < 0)
            Py_CLEAR(list);
    }
    return list;
}
