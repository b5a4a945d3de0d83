/* The bets of the mix's test over whole runs, for the tools. The twins: diagnose/drift.py and read/column_values.py.
 * Nothing of this runs in a training process. */
#include "core.h"

#include <math.h>

#define MOST_SOURCES 64

static void release(Numbers *columns, int count)
{
    for (int i = 0; i < count; i++)
        numbers_release(columns + i);
}

/* Take some arguments' doubles, at least so many of each; -1 with an error set. */
static int take(Numbers *columns, PyObject *const *args, int count, Py_ssize_t least)
{
    for (int i = 0; i < count; i++)
        if (numbers_take(columns + i, args[i], 'd', least) < 0)
            return -1;
    return 0;
}

static bool take_width(PyObject *number, int64_t *width)
{
    if (whole(number, width) && *width >= 1 && *width <= MOST_SOURCES)
        return true;
    PyErr_SetString(PyExc_ValueError, "too many sources, or none");
    return false;
}

PyDoc_STRVAR(dot_doc,
             "dot(values, others): return the correctly rounded sum of the products; NaN where it is not finite.");

static PyObject *dot(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers columns[2] = {0};
    PyObject *sum = NULL;
    if (check_count(arg_count, 2, "dot") < 0)
        return NULL;
    if (take(columns, args, 2, 0) == 0 && numbers_take(columns + 1, args[1], 'd', columns->count) == 0) {
        Partials partials;
        partials.used = 0;
        bool fine = true;
        for (Py_ssize_t at = 0; fine && at < columns->count; at++)
            fine = add_exactly(&partials, columns[0].doubles[at] * columns[1].doubles[at]);
        sum = PyFloat_FromDouble(fine ? rounded_sum(&partials) : NAN);
    }
    release(columns, 2);
    return sum;
}

/* Python's lgamma, which differs from the C library's in the last digit; false with an error set. */
static bool log_gamma(PyObject *function, double value, double *result)
{
    PyObject *number = PyFloat_FromDouble(value), *made = NULL;
    if (number != NULL)
        made = PyObject_CallFunctionObjArgs(function, number, NULL);
    Py_XDECREF(number);
    if (made == NULL)
        return false;
    *result = PyFloat_AsDouble(made);
    Py_DECREF(made);
    return PyErr_Occurred() == NULL;
}

typedef struct {
    PyObject *lgamma;
    int64_t width;
    double strength, number;
    const double *picks, *shares;
} Block;

/* Bet on a block of intervals, then count it: 1; 0 where that is left to the twin, -1 with an error set. */
static int take_bet(const Block *block, double *counts, double *expected, double *value)
{
    double tilted[MOST_SOURCES], before, after;
    for (int64_t j = 0; j < block->width; j++) {
        double prior = block->strength * block->shares[j];
        tilted[j] = block->shares[j] != 0.0 ? block->shares[j] * (prior + counts[j]) / (prior + expected[j]) : 0.0;
    }
    double total = exact_sum(counts, (Py_ssize_t)block->width) + block->strength;
    double scale = total / exact_sum(tilted, (Py_ssize_t)block->width);
    if (!isfinite(scale))
        return 0;
    if (!log_gamma(block->lgamma, total, &before) || !log_gamma(block->lgamma, total + block->number, &after))
        return -1;
    double gain = before - after;
    for (int64_t j = 0; j < block->width; j++) {
        double pick = block->picks[j];
        if (pick == 0.0)
            continue;
        if (!(block->shares[j] > 0.0))
            return 0;
        if (!log_gamma(block->lgamma, scale * tilted[j] + pick, &after) ||
            !log_gamma(block->lgamma, scale * tilted[j], &before))
            return -1;
        gain += after - before - pick * log(block->shares[j]);
    }
    *value += gain;
    for (int64_t j = 0; j < block->width; j++) {
        counts[j] += block->picks[j];
        expected[j] += block->number * block->shares[j];
    }
    return 1;
}

PyDoc_STRVAR(take_bets_doc,
             "take_bets(width, strength, picks, shares, counts, expected, logs): bet on a block of intervals, each bet "
             "by its own counts so far, then count it. Returns how many bets were taken: the twin takes the rest.");

static PyObject *take_bets(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers columns[4] = {0}, logs = {0};
    Block block = {0};
    PyObject *math = NULL, *done = NULL;
    Py_ssize_t taken = 0;
    if (check_count(arg_count, 7, "take_bets") < 0 || !take_width(args[0], &block.width))
        return NULL;
    block.strength = PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred())
        return NULL;
    Py_ssize_t width = (Py_ssize_t)block.width;
    if (numbers_take(&logs, args[6], 'd', 0) < 0 || take(columns, args + 2, 2, width) < 0 ||
        take(columns + 2, args + 4, 2, logs.count * width) < 0)
        goto end;
    if ((math = PyImport_ImportModule("math")) == NULL)
        goto end;
    if ((block.lgamma = PyObject_GetAttrString(math, "lgamma")) == NULL)
        goto end;
    block.picks = columns[0].doubles, block.shares = columns[1].doubles;
    block.number = exact_sum(block.picks, width);
    int is_taken = 1;
    for (; taken < logs.count; taken += is_taken) {
        Py_ssize_t at = taken * width;
        is_taken = take_bet(&block, columns[2].doubles + at, columns[3].doubles + at, logs.doubles + taken);
        if (is_taken != 1)
            break;
    }
    if (is_taken >= 0)
        done = PyLong_FromSsize_t(taken);
end:
    Py_XDECREF(block.lgamma);
    Py_XDECREF(math);
    release(columns, 4);
    numbers_release(&logs);
    return done;
}

PyDoc_STRVAR(tilts_doc, "tilts(rows, width, picks, shares, totals, ratios, logs, out): write how much more likely each "
                        "row's picks are by the tilted shares, as logarithms; return whether all are finite.");

static PyObject *tilts(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers columns[2] = {0}, totals = {0}, of_source[2] = {0}, out = {0};
    double row[2][MOST_SOURCES];
    int64_t rows, width;
    PyObject *done = NULL;
    if (check_count(arg_count, 8, "tilts") < 0 || !take_width(args[1], &width))
        return NULL;
    if (!whole(args[0], &rows) || rows < 0 || rows > PY_SSIZE_T_MAX / 8 / width) {
        PyErr_SetString(PyExc_ValueError, "too many rows");
        return NULL;
    }
    if (take(columns, args + 2, 2, (Py_ssize_t)(rows * width)) == 0 &&
        take(&totals, args + 4, 1, (Py_ssize_t)rows) == 0 &&
        take(of_source, args + 5, 2, (Py_ssize_t)width) == 0 && take(&out, args + 7, 1, (Py_ssize_t)rows) == 0) {
        bool finite = true;
        for (int64_t at = 0; at < rows; at++) {
            for (int64_t j = 0; j < width; j++) {
                row[0][j] = columns[0].doubles[j * rows + at] * of_source[1].doubles[j];
                row[1][j] = columns[1].doubles[j * rows + at] * of_source[0].doubles[j];
            }
            double tilt = exact_sum(row[1], (Py_ssize_t)width);
            double likely = exact_sum(row[0], (Py_ssize_t)width);
            out.doubles[at] = likely - totals.doubles[at] * log(tilt != 0.0 ? tilt : 1.0);
            finite &= isfinite(out.doubles[at]) != 0;
        }
        done = PyBool_FromLong(finite);
    }
    release(columns, 2);
    release(of_source, 2);
    numbers_release(&totals);
    numbers_release(&out);
    return done;
}

PyDoc_STRVAR(rank_weights_doc,
             "rank_weights(values, ranks, weights, firsts): add each value to its rank's weight, and write the index "
             "of a rank's first one, where neither is NaN. Returns whether there was room for all ranks.");

static PyObject *rank_weights(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers columns[2] = {0}, weights = {0}, firsts = {0};
    PyObject *done = NULL;
    if (check_count(arg_count, 4, "rank_weights") < 0)
        return NULL;
    if (take(columns, args, 2, 0) == 0 && numbers_take(columns + 1, args[1], 'd', columns->count) == 0 &&
        take(&weights, args + 2, 1, 0) == 0 && numbers_take(&firsts, args[3], 'q', weights.count) == 0) {
        bool fits = true;
        for (Py_ssize_t at = 0; fits && at < columns->count; at++) {
            double value = columns[0].doubles[at], rank = columns[1].doubles[at];
            if (isnan(value) || isnan(rank))
                continue;
            fits = rank >= 0.0 && rank < (double)weights.count;
            if (!fits)
                break;
            Py_ssize_t index = (Py_ssize_t)rank;
            weights.doubles[index] += value;
            if (firsts.longs[index] < 0)
                firsts.longs[index] = at;
        }
        done = PyBool_FromLong(fits);
    }
    release(columns, 2);
    numbers_release(&weights);
    numbers_release(&firsts);
    return done;
}

static PyMethodDef functions[] = {
    {"dot", (PyCFunction)(void (*)(void))dot, METH_FASTCALL, dot_doc},
    {"rank_weights", (PyCFunction)(void (*)(void))rank_weights, METH_FASTCALL, rank_weights_doc},
    {"take_bets", (PyCFunction)(void (*)(void))take_bets, METH_FASTCALL, take_bets_doc},
    {"tilts", (PyCFunction)(void (*)(void))tilts, METH_FASTCALL, tilts_doc},
    {NULL, NULL, 0, NULL},
};

int add_bets(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
