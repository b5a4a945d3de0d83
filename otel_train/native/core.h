/* The native core: what runs at each step, over memory that Python owns. docs/decisions/native-core.md has why it is C.
 *
 * Rules of these files:
 * - Only the limited API of Python 3.11: one build serves all later versions.
 * - No global state: what a function needs hangs on an object or on the module. A signal's handler has no such object.
 * - No memory of its own: arrays, bytearrays and mappings are Python's; an object holds their buffers while it lives.
 * - Each function has a twin in Python, which is the reference: the same operations on numbers, in the same order. What
 *   is rare (an odd argument, an error, a change of configuration) is left to the twin.
 */
#ifndef OTEL_TRAIN_CORE_H
#define OTEL_TRAIN_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef Py_GIL_DISABLED
#error "the core relies on the GIL: a free-threaded Python runs the twins in Python"
#endif

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the core writes a ring's records as they are in memory, and a ring is little-endian: the twins run elsewhere"
#endif

/* Numbers that Python owns: of an array, a bytearray, a memoryview or a mapping. Small, since an object has many, and
 * each line of cache that a step touches comes back after training has used it: a memoryview has the buffer itself. */
typedef struct {
    union {
        void *bytes;
        double *doubles;
        int64_t *longs;
    };
    Py_ssize_t count; /* elements */
    PyObject *held;   /* a memoryview, which nobody else has */
} Numbers;

/* Take the numbers of `owner`; format is "d" (float64), "q" (int64) or "B" (bytes). Returns -1 with an error set where
 * it is no contiguous writable buffer of that format with at least `least` elements. */
int numbers_take(Numbers *numbers, PyObject *owner, char format, Py_ssize_t least);
void numbers_release(Numbers *numbers);

/* Return a new list of floats. */
PyObject *list_of(const double *numbers, Py_ssize_t count);
/* Call the twin of a method, with the arguments that a METH_FASTCALL | METH_KEYWORDS function got; self is NULL for a
 * bound one. */
PyObject *call_twin(PyObject *twin, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
/* Step of SplitMix64, and its finaliser: splitmix.py. */
#define SPLITMIX_INCREMENT 0x9E3779B97F4A7C15u

static inline uint64_t splitmix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
    return value ^ (value >> 31);
}

/* Read a whole number; false where it is none that an int64 holds, with no error set. */
bool whole(PyObject *number, int64_t *value);
/* Check how many arguments a function got; -1 with an error set where it is another number. */
int check_count(Py_ssize_t got, Py_ssize_t expected, const char *name);
/* Make names interned, those that are not made yet; false with an error set where that is not possible. */
bool intern_names(PyObject **interned, const char *const *names, int count);
/* Which of these names an argument has; -1 for none of them, or for a text that is not interned. */
Py_ssize_t name_at(PyObject *name, PyObject *const *interned, int count);
/* Make a type and add it to the module; -1 with an error set where it can't. The type is also kept in *kept, unless
 * that is NULL. */
int add_type(PyObject *module, PyType_Spec *spec, PyObject **kept);

/* The CRC-32 of some bytes. */
uint32_t check_value(const void *begin, size_t count);
/* The object's base that a file of the core has made; NULL with an error set where it has another one. */
void *checked(PyObject *object, PyObject *type);

/* Read a value of JSON; false where it is none, or one that is left to the twin. A plain text, null, true and false are
 * no numbers. */
bool json_value(const uint8_t *begin, const uint8_t *end, double *value, bool *is_number);
#define EXACT 9007199254740992.0 /* 2^53: whole numbers up to it are exact */

/* A sum of finite numbers without any rounding, as numbers that don't overlap, as math.fsum has it (Shewchuk 1997). */
#define MOST_PARTIALS 64
typedef struct {
    double parts[MOST_PARTIALS];
    Py_ssize_t used;
} Partials;

/* Add a number; false where the sum is beyond a float. */
static inline bool add_exactly(Partials *sum, double x)
{
    Py_ssize_t kept = 0;
    for (Py_ssize_t j = 0; j < sum->used; j++) {
        double y = sum->parts[j];
        if (fabs(x) < fabs(y)) {
            double swapped = x;
            x = y;
            y = swapped;
        }
        double high = x + y, low = y - (high - x);
        if (low != 0.0)
            sum->parts[kept++] = low;
        x = high;
    }
    if (!isfinite(x) || kept == MOST_PARTIALS)
        return false;
    sum->used = kept;
    if (x != 0.0)
        sum->parts[sum->used++] = x;
    return true;
}

double rounded_sum(const Partials *sum);
/* The correctly rounded sum of some numbers; NaN beyond a float. */
double exact_sum(const double *values, Py_ssize_t count);

/* The types that one file needs of another. */
typedef struct {
    PyObject *picks, *clock, *ring, *interval;
} Types;

/* Each file adds its types and functions to the module; -1 with an error set where it can't. */
int add_meter(PyObject *module, Types *types);
int add_record(PyObject *module, Types *types);
int add_interval(PyObject *module, Types *types);
int add_step(PyObject *module, Types *types);
int add_ledger(PyObject *module);
int add_ids(PyObject *module);
int add_reduction(PyObject *module);
int add_signals(PyObject *module);
int add_columns(PyObject *module);
int add_history(PyObject *module);
int add_series(PyObject *module);
int add_row_text(PyObject *module);
int add_bets(PyObject *module);

#endif
