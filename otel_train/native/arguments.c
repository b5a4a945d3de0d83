/* Arguments that the ledger's functions take. */
#include "ledger.h"

int take_whole(int64_t *value, PyObject *given, int64_t least, int64_t most)
{
    *value = PyLong_AsLongLong(given);
    if (*value == -1 && PyErr_Occurred())
        return -1;
    if (*value >= least && *value <= most)
        return 0;
    PyErr_Format(PyExc_ValueError, "must be between %lld and %lld, got %lld", (long long)least, (long long)most,
                 (long long)*value);
    return -1;
}

void release_all(Numbers *numbers, size_t count)
{
    for (size_t at = 0; at < count; at++)
        numbers_release(&numbers[at]);
}

static bool overlap(const Numbers *left, const Numbers *right)
{
    uintptr_t of_left = (uintptr_t)left->bytes, of_right = (uintptr_t)right->bytes;
    return of_left < of_right + 8 * (size_t)right->count && of_right < of_left + 8 * (size_t)left->count;
}

int take_all(Numbers *numbers, PyObject *const *owners, size_t count, int64_t first, int64_t least)
{
    memset(numbers, 0, count * sizeof *numbers);
    for (size_t at = 0; at < count; at++) {
        bool taken = numbers_take(&numbers[at], owners[at], 'q', (Py_ssize_t)(at ? least : first)) == 0;
        for (size_t other = 0; taken && other < at; other++)
            if (overlap(&numbers[at], &numbers[other])) {
                PyErr_SetString(PyExc_ValueError, "the same buffer is given twice");
                taken = false;
            }
        if (!taken) {
            release_all(numbers, at + 1);
            return -1;
        }
    }
    return 0;
}
