/* Arithmetic on the columns of whole runs, for the tools. The twins: column_values.py, curve_points.py, pick_columns.py
 * and pick_orders.py in read/. Nothing of this runs in a training process. */
#include "core.h"

#include <float.h>
#include <math.h>

#define MOST_SOURCES 64

/* Take the doubles of some arguments, which are as many each; -1 with an error set. */
static int take_alike(Numbers *columns, PyObject *const *args, int count)
{
    for (int i = 0; i < count; i++)
        if (numbers_take(columns + i, args[i], 'd', i > 0 ? columns->count : 0) < 0)
            return -1;
    return 0;
}

static void release_all(Numbers *columns, int count)
{
    for (int i = 0; i < count; i++)
        numbers_release(columns + i);
}

/* Read a float64; false with an error set where it is none. */
static bool real(PyObject *number, double *value)
{
    *value = PyFloat_AsDouble(number);
    return PyErr_Occurred() == NULL;
}

PyDoc_STRVAR(span_doc, "span(values): return the least and the largest value; None where there is none, or a NaN.");

static PyObject *span(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers values = {0};
    if (check_count(arg_count, 1, "span") < 0 || numbers_take(&values, args[0], 'd', 0) < 0)
        return NULL;
    bool known = values.count > 0;
    double low = known ? values.doubles[0] : 0.0, high = low;
    for (Py_ssize_t at = 0; at < values.count; at++) {
        double value = values.doubles[at];
        low = value < low ? value : low;
        high = value > high ? value : high;
        known &= value == value;
    }
    numbers_release(&values);
    return known ? Py_BuildValue("dd", low, high) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(whole_sum_doc, "whole_sum(values): return the correctly rounded sum; NaN where it is not finite.");

static PyObject *whole_sum(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers values = {0};
    if (check_count(arg_count, 1, "whole_sum") < 0 || numbers_take(&values, args[0], 'd', 0) < 0)
        return NULL;
    double sum = exact_sum(values.doubles, values.count);
    numbers_release(&values);
    return PyFloat_FromDouble(sum);
}

PyDoc_STRVAR(edge_doc, "edge(values, low, high, inside, begin, end): return the index of the first value from `begin` "
                       "on that is within [low, high], or is not; before `end`, or backwards after it. -1 without.");

static PyObject *edge(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers values = {0};
    double low, high;
    int64_t inside, begin, end, index = -1;
    if (check_count(arg_count, 6, "edge") < 0 || !real(args[1], &low) || !real(args[2], &high))
        return NULL;
    if (numbers_take(&values, args[0], 'd', 0) < 0)
        return NULL;
    if (!whole(args[3], &inside) || !whole(args[4], &begin) || !whole(args[5], &end) || end < -1 ||
        begin < (end > begin ? 0 : -1) || begin > values.count - (end < begin) || end > values.count) {
        numbers_release(&values);
        PyErr_SetString(PyExc_ValueError, "begin and end must be indices");
        return NULL;
    }
    int64_t by = end < begin ? -1 : 1;
    for (int64_t at = begin; at != end; at += by)
        if ((low <= values.doubles[at] && values.doubles[at] <= high) == (inside != 0)) {
            index = at;
            break;
        }
    numbers_release(&values);
    return PyLong_FromLongLong(index);
}

/* Change two columns of one length in place, pair by pair. */
static inline PyObject *change_pairs(PyObject *first, PyObject *second, void (*change)(double *, double *, double),
                                     double given)
{
    Numbers columns[2] = {0};
    PyObject *pair[2] = {first, second}, *done = NULL;
    if (take_alike(columns, pair, 2) == 0) {
        for (Py_ssize_t at = 0; at < columns->count; at++)
            change(columns[0].doubles + at, columns[1].doubles + at, given);
        done = Py_NewRef(Py_None);
    }
    release_all(columns, 2);
    return done;
}

static void write_product(double *value, double *out, double factor)
{
    *out = factor * *value;
}

static void divide_by(double *above, double *below, double none)
{
    *above = *below != 0.0 ? *above / *below : none;
}

static void add_to(double *value, double *other, double Py_UNUSED(given))
{
    *value += *other;
}

static void multiply_by(double *value, double *factor, double Py_UNUSED(given))
{
    *value *= *factor;
}

static void name_peak(double *peak, double *rank, double Py_UNUSED(given))
{
    if (*peak == -INFINITY)
        *rank = NAN;
}

PyDoc_STRVAR(scale_doc, "scale(values, factor, out): write the products.");

static PyObject *scale(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    double factor;
    if (check_count(arg_count, 3, "scale") < 0 || !real(args[1], &factor))
        return NULL;
    return change_pairs(args[0], args[2], write_product, factor);
}

PyDoc_STRVAR(divide_doc, "divide(values, below, none): divide in place; `none` where nothing is below.");

static PyObject *divide(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    double none;
    if (check_count(arg_count, 3, "divide") < 0 || !real(args[2], &none))
        return NULL;
    return change_pairs(args[0], args[1], divide_by, none);
}

PyDoc_STRVAR(add_doc, "add(values, others): add in place.");

static PyObject *add(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    return check_count(arg_count, 2, "add") < 0 ? NULL : change_pairs(args[0], args[1], add_to, 0.0);
}

PyDoc_STRVAR(multiply_doc, "multiply(values, factors): multiply in place.");

static PyObject *multiply(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    return check_count(arg_count, 2, "multiply") < 0 ? NULL : change_pairs(args[0], args[1], multiply_by, 0.0);
}

PyDoc_STRVAR(peaks_doc, "peaks(values, sign, none): have each reduced peak as it is, in place.");

static PyObject *peaks(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers values = {0};
    double sign, none;
    if (check_count(arg_count, 3, "peaks") < 0 || !real(args[1], &sign) || !real(args[2], &none))
        return NULL;
    if (numbers_take(&values, args[0], 'd', 0) < 0)
        return NULL;
    for (Py_ssize_t at = 0; at < values.count; at++) {
        double value = values.doubles[at];
        values.doubles[at] = value == -INFINITY ? none : sign * (value == -DBL_MAX ? -INFINITY : value);
    }
    numbers_release(&values);
    return Py_NewRef(Py_None);
}

PyDoc_STRVAR(name_peaks_doc, "name_peaks(values, ranks): have NaN as the rank of each peak that nobody has, in place.");

static PyObject *name_peaks(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    return check_count(arg_count, 2, "name_peaks") < 0 ? NULL : change_pairs(args[0], args[1], name_peak, 0.0);
}

PyDoc_STRVAR(own_sums_doc, "own_sums(values): have NaN for each negative zero, in place.");

static PyObject *own_sums(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers values = {0};
    if (check_count(arg_count, 1, "own_sums") < 0 || numbers_take(&values, args[0], 'd', 0) < 0)
        return NULL;
    for (Py_ssize_t at = 0; at < values.count; at++)
        if (values.doubles[at] == 0.0 && signbit(values.doubles[at]))
            values.doubles[at] = NAN;
    numbers_release(&values);
    return Py_NewRef(Py_None);
}

PyDoc_STRVAR(row_sums_doc, "row_sums(rows, width, columns, out): write the correctly rounded sum of each row of "
                           "columns beside each other; return whether all are finite.");

static PyObject *row_sums(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers columns = {0}, out = {0};
    double row[MOST_SOURCES];
    int64_t rows, width;
    PyObject *done = NULL;
    if (check_count(arg_count, 4, "row_sums") < 0)
        return NULL;
    if (!whole(args[0], &rows) || !whole(args[1], &width) || rows < 0 || width < 1 || width > MOST_SOURCES ||
        rows > PY_SSIZE_T_MAX / 8 / width) {
        PyErr_SetString(PyExc_ValueError, "too many rows or sources");
        return NULL;
    }
    if (numbers_take(&columns, args[2], 'd', (Py_ssize_t)(rows * width)) == 0 &&
        numbers_take(&out, args[3], 'd', (Py_ssize_t)rows) == 0) {
        bool finite = true;
        for (int64_t at = 0; at < rows; at++) {
            for (int64_t j = 0; j < width; j++)
                row[j] = columns.doubles[j * rows + at];
            out.doubles[at] = exact_sum(row, (Py_ssize_t)width);
            finite &= isfinite(out.doubles[at]) != 0;
        }
        done = PyBool_FromLong(finite);
    }
    numbers_release(&columns);
    numbers_release(&out);
    return done;
}

/* Bits of a double as a number that is the larger the larger the double is. */
static uint64_t order_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

/* The double with so many smaller ones, by its bits from the highest on, a byte at a time. */
static double nth(const double *values, Py_ssize_t count, Py_ssize_t index)
{
    uint64_t found = 0, mask = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        Py_ssize_t counts[256] = {0};
        int byte = 0;
        for (Py_ssize_t at = 0; at < count; at++) {
            uint64_t order = order_of(values[at]);
            if ((order & mask) == found)
                counts[order >> shift & 255]++;
        }
        while (index >= counts[byte])
            index -= counts[byte++];
        found |= (uint64_t)byte << shift;
        mask |= (uint64_t)255 << shift;
    }
    double value;
    found = found >> 63 ? found ^ (uint64_t)1 << 63 : ~found;
    memcpy(&value, &found, sizeof value);
    return value;
}

PyDoc_STRVAR(median_doc, "median(values): return the median, of an even number the mean of the two in the middle.");

static PyObject *median(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers values = {0};
    if (check_count(arg_count, 1, "median") < 0 || numbers_take(&values, args[0], 'd', 1) < 0)
        return NULL;
    double middle = nth(values.doubles, values.count, values.count / 2);
    if (values.count % 2 == 0)
        middle = (nth(values.doubles, values.count, values.count / 2 - 1) + middle) / 2.0;
    numbers_release(&values);
    return PyFloat_FromDouble(middle);
}

PyDoc_STRVAR(sign_bits_doc, "sign_bits(rows, width, columns, out): write a byte for each row of columns beside each "
                            "other, a bit for each column, the first one's highest: whether it is above 0.");

static PyObject *sign_bits(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers columns = {0}, out = {0};
    int64_t rows, width;
    PyObject *done = NULL;
    if (check_count(arg_count, 4, "sign_bits") < 0)
        return NULL;
    if (!whole(args[0], &rows) || !whole(args[1], &width) || rows < 0 || width < 1 || width > 8 ||
        rows > PY_SSIZE_T_MAX / 8 / width) {
        PyErr_SetString(PyExc_ValueError, "too many rows or columns");
        return NULL;
    }
    if (numbers_take(&columns, args[2], 'd', (Py_ssize_t)(rows * width)) == 0 &&
        numbers_take(&out, args[3], 'B', (Py_ssize_t)rows) == 0) {
        for (int64_t at = 0; at < rows; at++) {
            unsigned bits = 0;
            for (int64_t j = 0; j < width; j++)
                bits = bits << 1 | (columns.doubles[j * rows + at] > 0.0);
            ((uint8_t *)out.bytes)[at] = (uint8_t)bits;
        }
        done = Py_NewRef(Py_None);
    }
    numbers_release(&columns);
    numbers_release(&out);
    return done;
}

static PyMethodDef functions[] = {
    {"add", (PyCFunction)(void (*)(void))add, METH_FASTCALL, add_doc},
    {"divide", (PyCFunction)(void (*)(void))divide, METH_FASTCALL, divide_doc},
    {"edge", (PyCFunction)(void (*)(void))edge, METH_FASTCALL, edge_doc},
    {"median", (PyCFunction)(void (*)(void))median, METH_FASTCALL, median_doc},
    {"multiply", (PyCFunction)(void (*)(void))multiply, METH_FASTCALL, multiply_doc},
    {"name_peaks", (PyCFunction)(void (*)(void))name_peaks, METH_FASTCALL, name_peaks_doc},
    {"own_sums", (PyCFunction)(void (*)(void))own_sums, METH_FASTCALL, own_sums_doc},
    {"peaks", (PyCFunction)(void (*)(void))peaks, METH_FASTCALL, peaks_doc},
    {"row_sums", (PyCFunction)(void (*)(void))row_sums, METH_FASTCALL, row_sums_doc},
    {"scale", (PyCFunction)(void (*)(void))scale, METH_FASTCALL, scale_doc},
    {"sign_bits", (PyCFunction)(void (*)(void))sign_bits, METH_FASTCALL, sign_bits_doc},
    {"span", (PyCFunction)(void (*)(void))span, METH_FASTCALL, span_doc},
    {"whole_sum", (PyCFunction)(void (*)(void))whole_sum, METH_FASTCALL, whole_sum_doc},
    {NULL, NULL, 0, NULL},
};

int add_series(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
