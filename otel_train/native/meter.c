/* What a mixing meter counts: the twins are PickCounts.pick and PickCounts.drain in mixing/pick_counts.py. */
#include "core.h"
#include "meter.h"

#include <math.h>
#include <stddef.h>

#define EMPTY (-1)
#define MOST_ROWS (1LL << 53)

#define NO_ARRAYS "the meter has no arrays"

__extension__ typedef __int128 Wide; /* holds any sum of steps, as Python's numbers do */

static const double STARVED_SURPRISE = 13.815510557964274; /* -log(1e-6) */

/* -- the order of picks: mixing/pick_order.py ---------------------------------------------------------------------- */

static void note_pick(Picks *picks, uint64_t value)
{
    picks->order = picks->order * SPLITMIX_INCREMENT + value + 1;
    picks->ordered = 1;
}

/* -- one pick ------------------------------------------------------------------------------------------------------ */

/* Read (slot, rows=1, tokens=0) where they are whole numbers; false where the twin is to look at them. */
static bool read_pick(Picks *picks, PyObject *const *args, Py_ssize_t count, PyObject *names, int64_t *numbers)
{
    if (count > PICK_NAMES)
        return false;
    bool given[PICK_NAMES] = {false};
    for (Py_ssize_t i = 0; i < count; i++) {
        given[i] = true;
        if (!whole(args[i], &numbers[i]))
            return false;
    }
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    for (Py_ssize_t i = 0; i < named; i++) {
        Py_ssize_t at = name_at(PyTuple_GetItem(names, i), picks->names, PICK_NAMES);
        if (at < 0 || given[at] || !whole(args[count + i], &numbers[at]))
            return false;
        given[at] = true;
    }
    return given[0];
}

static PyObject *pick(Picks *picks, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    int64_t numbers[3] = {0, 1, 0};
    if (picks->twin == NULL) {
        PyErr_SetString(PyExc_RuntimeError, NO_ARRAYS);
        return NULL;
    }
    if (!read_pick(picks, args, count, names, numbers))
        return call_twin(picks->twin, (PyObject *)picks, args, count, names);
    int64_t slot = numbers[0], rows = numbers[1], tokens = numbers[2];
    bool plain = slot >= 0 && slot < picks->last_step.count && rows >= 0 && rows <= MOST_ROWS && tokens >= 0;
    int64_t modality = plain ? picks->modality.longs[slot] : EMPTY;
    if (modality < 0 || modality >= picks->tokens.count)
        return call_twin(picks->twin, (PyObject *)picks, args, count, names);
    picks->tokens.doubles[modality] += (double)tokens;
    picks->new_counts.doubles[modality] += (double)rows;
    picks->last_step.longs[slot] = picks->step;
    picks->total += (double)rows;
    int64_t draws = picks->by_batch ? rows != 0 : rows;
    picks->draws += (double)draws;
    picks->total_picked.doubles[slot] = picks->draws;
    note_pick(picks, (uint64_t)modality);
    if (rows != 1)
        note_pick(picks, (uint64_t)rows);
    if (modality != picks->previous && rows) {
        if (picks->previous != EMPTY)
            picks->switches += 1;
        else
            picks->unpaired += 1;
        picks->previous = modality;
    }
    if (draws != rows)
        picks->unpaired += (double)(rows - draws);
    Py_RETURN_NONE;
}

/* -- the end of an interval ---------------------------------------------------------------------------------------- */

/* ReaderSlots.settle. */
static void picks_settle(Picks *picks, int64_t step)
{
    if (step != picks->step)
        for (Py_ssize_t i = 0; i < picks->last_step.count; i++)
            if (picks->last_step.longs[i] == picks->step)
                picks->last_step.longs[i] = step;
}

void picks_end_step(Picks *picks, int64_t step)
{
    picks_settle(picks, step);
    picks->step = step + 1;
}

void picks_prefetch(const Picks *picks)
{
    for (size_t at = 0; at < sizeof *picks; at += 64)
        __builtin_prefetch((const char *)picks + at, 1);
    const Numbers *all[] = {&picks->last_step,     &picks->modality, &picks->counts, &picks->targets,
                            &picks->new_counts,    &picks->shares,   &picks->tokens, &picks->early_targets};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        __builtin_prefetch(all[i]->bytes, 1);
}

static void decay(Picks *picks, double new_picks)
{
    if (new_picks != picks->kept_picks) { /* mostly as many as in the step before */
        picks->kept_picks = new_picks;
        picks->kept = exp(-new_picks / picks->horizon);
    }
    double keep = picks->kept, since = picks->total - picks->weighed;
    double *counts = picks->counts.doubles, *targets = picks->targets.doubles;
    double *new_counts = picks->new_counts.doubles, *early = picks->early_targets.doubles;
    const double *shares = picks->shares.doubles;
    for (Py_ssize_t i = 0; i < picks->tokens.count; i++) {
        counts[i] = counts[i] * keep + new_counts[i];
        targets[i] = targets[i] * keep + since * shares[i] + early[i];
        new_counts[i] = early[i] = 0.0;
    }
    picks->weighed = picks->total_drained = picks->total;
}

/* Starvation.count. */
static double count_starved(Picks *picks)
{
    double starved = 0.0, earliest = INFINITY;
    for (Py_ssize_t i = 0; i < picks->last_step.count; i++) {
        if (picks->modality.longs[i] == EMPTY)
            continue;
        double picked = picks->total_picked.doubles[i], one_more = picks->miss_surprise.doubles[i];
        double surprise = picked == picks->expected ? picks->surprise.doubles[i] : 0.0;
        double misses = picks->draws - picked;
        if (misses != 0.0)
            surprise = surprise + misses * one_more;
        if (surprise > STARVED_SURPRISE) {
            starved += 1.0;
        } else if (one_more != 0.0) {
            double next = picks->draws + (STARVED_SURPRISE - surprise) / one_more;
            if (next < earliest)
                earliest = next;
        }
    }
    picks->earliest = starved != 0.0 ? -INFINITY : earliest;
    return starved;
}

Py_ssize_t picks_size(const Picks *picks)
{
    return picks->twin == NULL ? 0 : PICKS_FIXED + 3 * picks->tokens.count;
}

void picks_drain(Picks *picks, int64_t step, double *out)
{
    picks_settle(picks, step);
    double new_picks = picks->total - picks->total_drained;
    if (new_picks != 0.0)
        decay(picks, new_picks);
    Wide sum = 0;
    int64_t least = INT64_MAX;
    for (Py_ssize_t i = 0; i < picks->last_step.count; i++) {
        if (picks->modality.longs[i] == EMPTY)
            continue;
        int64_t last = picks->last_step.longs[i];
        sum += last;
        least = last < least ? last : least;
    }
    Py_ssize_t modalities = picks->tokens.count;
    *out++ = new_picks;
    *out++ = picks->active;
    *out++ = picks->restarts;
    *out++ = picks->active * (double)step - (double)sum;
    *out++ = picks->switches;
    *out++ = new_picks - picks->unpaired;
    memcpy(out, picks->counts.doubles, (size_t)modalities * sizeof(double));
    memcpy(out += modalities, picks->targets.doubles, (size_t)modalities * sizeof(double));
    memcpy(out += modalities, picks->tokens.doubles, (size_t)modalities * sizeof(double));
    memset(picks->tokens.doubles, 0, (size_t)modalities * sizeof(double));
    out += modalities;
    *out++ = picks->draws > picks->earliest && picks->judged ? count_starved(picks) : 0.0;
    uint64_t signs = splitmix(picks->order) >> (64 - ORDER_SIGNS);
    *out++ = picks->ordered ? 1.0 : 0.0;
    for (int bit = 0; bit < ORDER_SIGNS; bit++)
        *out++ = !picks->ordered ? 0.0 : signs >> bit & 1 ? 1.0 : -1.0;
    *out = least == INT64_MAX ? -INFINITY : (double)((Wide)step - least);
    picks->restarts = picks->switches = picks->unpaired = 0.0;
    picks->ordered = 0;
    picks->step = (int64_t)((uint64_t)step + 1);
}

/* -- the object ---------------------------------------------------------------------------------------------------- */

static void release(Picks *picks)
{
    Numbers *all[] = {&picks->last_step, &picks->modality,   &picks->total_picked, &picks->surprise,
                      &picks->miss_surprise, &picks->tokens, &picks->counts,       &picks->targets,
                      &picks->new_counts,    &picks->shares, &picks->early_targets};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        numbers_release(all[i]);
    Py_CLEAR(picks->twin);
}

static bool take_arrays(Picks *picks, PyObject *const *slots, PyObject *const *sources)
{
    if (numbers_take(&picks->last_step, slots[0], 'q', 0) < 0 || numbers_take(&picks->tokens, sources[0], 'd', 1) < 0)
        return false;
    Numbers *of_slots[] = {&picks->modality, &picks->total_picked, &picks->surprise, &picks->miss_surprise};
    for (int i = 0; i < 4; i++)
        if (numbers_take(of_slots[i], slots[i + 1], i == 0 ? 'q' : 'd', picks->last_step.count) < 0)
            return false;
    Numbers *of_sources[] = {&picks->counts, &picks->targets, &picks->new_counts, &picks->shares,
                             &picks->early_targets};
    for (int i = 0; i < 5; i++)
        if (numbers_take(of_sources[i], sources[i + 1], 'd', picks->tokens.count) < 0)
            return false;
    return true;
}

static PyObject *bind(Picks *picks, PyObject *args)
{
    PyObject *of_slots, *of_sources, *slots[5], *sources[6], *twin;
    /* Tuples, which hold their items: "(OO...)" takes any sequence, and keeps no item of one that makes them. */
    if (!PyArg_ParseTuple(args, "O!O!O", &PyTuple_Type, &of_slots, &PyTuple_Type, &of_sources, &twin))
        return NULL;
    if (PyTuple_Size(of_slots) != 5 || PyTuple_Size(of_sources) != 6) {
        PyErr_SetString(PyExc_TypeError, "bind() takes 5 arrays of slots and 6 of sources");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < 5; i++)
        slots[i] = PyTuple_GetItem(of_slots, i);
    for (Py_ssize_t i = 0; i < 6; i++)
        sources[i] = PyTuple_GetItem(of_sources, i);
    release(picks); /* all or nothing: sizes of two bindings must not meet */
    static const char *const names[PICK_NAMES] = {"slot", "rows", "tokens"};
    if (!intern_names(picks->names, names, PICK_NAMES) || !take_arrays(picks, slots, sources)) {
        release(picks);
        return NULL;
    }
    picks->kept_picks = NAN;
    Py_INCREF(twin);
    picks->twin = twin;
    Py_RETURN_NONE;
}

static PyObject *drain(Picks *picks, PyObject *args, PyObject *options)
{
    static char *names[] = {"step", NULL};
    PyObject *given = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, options, "|O", names, &given))
        return NULL;
    int64_t step = given == Py_None ? picks->step : PyLong_AsLongLong(given);
    if (step == -1 && PyErr_Occurred())
        return NULL;
    if (picks->twin == NULL) {
        PyErr_SetString(PyExc_RuntimeError, NO_ARRAYS);
        return NULL;
    }
    PyObject *scratch = PyByteArray_FromStringAndSize(NULL, picks_size(picks) * (Py_ssize_t)sizeof(double));
    if (scratch == NULL)
        return NULL;
    double *values = (double *)PyByteArray_AsString(scratch);
    picks_drain(picks, step, values);
    PyObject *list = list_of(values, picks_size(picks));
    Py_DECREF(scratch);
    return list;
}

static int traverse(Picks *picks, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE((PyObject *)picks));
    Py_VISIT(picks->twin);
    return 0;
}

static int clear(Picks *picks)
{
    release(picks);
    return 0;
}

static void dealloc(Picks *picks)
{
    PyTypeObject *type = Py_TYPE((PyObject *)picks);
    PyObject_GC_UnTrack(picks);
    release(picks);
    for (int i = 0; i < PICK_NAMES; i++)
        Py_CLEAR(picks->names[i]);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(picks);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"pick", (PyCFunction)(void (*)(void))pick, METH_FASTCALL | METH_KEYWORDS,
     "pick($self, /, slot, rows=1, tokens=0)\n--\n\nCount picks of the reader in a slot; see PickCounts."},
    {"drain", (PyCFunction)(void (*)(void))drain, METH_VARARGS | METH_KEYWORDS,
     "drain($self, /, step=None)\n--\n\nEnd the interval and return its measurements; see PickCounts."},
    {"bind", (PyCFunction)bind, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"step", T_LONGLONG, offsetof(Picks, step), 0, NULL},
    {"total", T_DOUBLE, offsetof(Picks, total), 0, NULL},
    {"total_drained", T_DOUBLE, offsetof(Picks, total_drained), 0, NULL},
    {"draws", T_DOUBLE, offsetof(Picks, draws), 0, NULL},
    {"restarts", T_DOUBLE, offsetof(Picks, restarts), 0, NULL},
    {"switches", T_DOUBLE, offsetof(Picks, switches), 0, NULL},
    {"unpaired", T_DOUBLE, offsetof(Picks, unpaired), 0, NULL},
    {"previous", T_LONGLONG, offsetof(Picks, previous), 0, NULL},
    {"order", T_ULONGLONG, offsetof(Picks, order), 0, NULL},
    {"ordered", T_BOOL, offsetof(Picks, ordered), 0, NULL},
    {"by_batch", T_BOOL, offsetof(Picks, by_batch), 0, NULL},
    {"judged", T_BOOL, offsetof(Picks, judged), 0, NULL},
    {"active", T_DOUBLE, offsetof(Picks, active), 0, NULL},
    {"earliest", T_DOUBLE, offsetof(Picks, earliest), 0, NULL},
    {"expected", T_DOUBLE, offsetof(Picks, expected), 0, NULL},
    {"weighed", T_DOUBLE, offsetof(Picks, weighed), 0, NULL},
    {"horizon", T_DOUBLE, offsetof(Picks, horizon), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, dealloc}, {Py_tp_traverse, traverse}, {Py_tp_clear, clear},
    {Py_tp_methods, methods}, {Py_tp_members, members},   {0, NULL},
};

static PyType_Spec spec = {
    .name = "otel_train.native._core.Picks",
    .basicsize = sizeof(Picks),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

int add_meter(PyObject *module, Types *types)
{
    return add_type(module, &spec, &types->picks);
}
