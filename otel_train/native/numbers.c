#include "core.h"

/* Whether a buffer has so many elements of a format. */
static bool fits(const Py_buffer *view, char format, Py_ssize_t size, Py_ssize_t least)
{
    const char *given = view->format == NULL ? "B" : view->format;
    /* A view of a part may begin anywhere; a number in C may not. (An empty array says that it begins anywhere.) */
    bool aligned = view->len == 0 || (uintptr_t)view->buf % (uintptr_t)size == 0;
    if (view->itemsize == size && given[0] == format && given[1] == '\0' && view->ndim <= 1 && aligned &&
        view->len / size >= least)
        return true;
    PyErr_Format(PyExc_ValueError,
                 "must be a buffer of at least %zd aligned elements of format '%c', got %zd bytes of '%s'", least,
                 (int)format, view->len, given);
    return false;
}

int numbers_take(Numbers *numbers, PyObject *owner, char format, Py_ssize_t least)
{
    Py_ssize_t size = format == 'B' ? 1 : 8;
    Py_buffer view;
    PyObject *held = PyMemoryView_FromObject(owner);
    if (held == NULL)
        return -1;
    if (PyObject_GetBuffer(held, &view, PyBUF_WRITABLE | PyBUF_FORMAT | PyBUF_ND) < 0) {
        Py_DECREF(held);
        return -1;
    }
    bool taken = fits(&view, format, size, least);
    if (taken) {
        numbers_release(numbers);
        numbers->count = view.len / size;
        numbers->bytes = view.buf; /* it stays there while the memoryview lives */
        if (view.len > 0) {
            Py_INCREF(held);
            numbers->held = held;
        } else { /* not held: Python refuses to write no elements to an array that is */
            numbers->bytes = numbers; /* never read; functions of C's want no NULL */
        }
    }
    PyBuffer_Release(&view);
    Py_DECREF(held);
    return taken ? 0 : -1;
}

void numbers_release(Numbers *numbers)
{
    numbers->bytes = NULL;
    numbers->count = 0;
    Py_CLEAR(numbers->held);
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
