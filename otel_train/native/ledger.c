/* The ledger's keys on one rank: which are held and in which row, their order of use, the ring of evicted keys. The
 * twin is in ledger/key_table.py.
 *
 * An index is a hash table with open addressing: a slot holds a position plus 1, and 0 where it is free. Keys are
 * hashes, but those of one owner may share their low bits, and a test's keys are small numbers: hence home().
 *
 * The order of use is a list in both directions through the rows. The order of evictions is a log: a key that leaves it
 * stays behind as a position without its bit in `live`, so the keys evicted after another one are bits to count. Their
 * sums are taken once for a call. A full log moves to its beginning, once in at least `remembered` evictions.
 */
#include "ledger.h"

#define ABSENT (-1)
#define BITS 64        /* positions of the log in a word of `live` */
#define BOUNDS_MOST 64 /* of the reuse distance's buckets */

enum { KEY, OLDER, NEWER, USED, ROW_FIELDS }; /* of a row, int64 each */
enum { FRESH, FALSE_EVICTIONS, EVICTIONS, REUSE_SUM, BUCKETS }; /* of the report of a store */

typedef struct {
    int64_t *slots;
    const int64_t *keys; /* by position, `stride` apart */
    size_t stride;
    size_t mask;
    int shift;
} Index;

typedef struct {
    PyObject_HEAD
    Numbers memory;
    int64_t capacity, remembered;
    Index index;          /* of the entries, by row */
    int64_t *rows;        /* ROW_FIELDS each; the last one, `capacity`, is both ends of the list */
    int64_t held, unused; /* rows from `unused` on were never used */
    int64_t free;         /* the first free row before that, linked by NEWER; ABSENT where there is none */
    int64_t latest;       /* at least the step of the newest row, while steps rise with the order */
    bool steps_rise;
    Index evicted;        /* of the log, by position */
    int64_t *log;
    uint64_t *live;       /* a bit for each position of the log */
    int64_t *later;       /* scratch: live positions after each word */
    int64_t words, begin, end, in_ring;
    int64_t *bounds;
    int64_t bound_count;
    Numbers seen;         /* scratch: the slots of an index of one call's keys */
} Table;

/* -- the index ---------------------------------------------------------------------------------------------------- */

static inline size_t home(const Index *index, int64_t key)
{
    return (size_t)(((uint64_t)key * 0x9E3779B97F4A7C15u) >> index->shift);
}

static inline int64_t key_at(const Index *index, int64_t position)
{
    return index->keys[(size_t)position * index->stride];
}

/* The slot of a key, or the free one where it would be. */
static inline size_t slot_of(const Index *index, int64_t key)
{
    size_t slot = home(index, key);
    while (index->slots[slot] && key_at(index, index->slots[slot] - 1) != key)
        slot = (slot + 1) & index->mask;
    return slot;
}

static inline int64_t index_find(const Index *index, int64_t key)
{
    return index->slots[slot_of(index, key)] - 1; /* ABSENT where the slot is free */
}

/* `position` has the key already. */
static inline void index_add(Index *index, int64_t key, int64_t position)
{
    index->slots[slot_of(index, key)] = position + 1;
}

/* Close the gap: whatever lies between its home and its slot across the gap moves into it. */
static void index_remove(Index *index, int64_t key)
{
    size_t gap = slot_of(index, key), slot = gap;
    for (;;) {
        slot = (slot + 1) & index->mask;
        if (!index->slots[slot])
            break;
        size_t own = home(index, key_at(index, index->slots[slot] - 1));
        if (((slot - own) & index->mask) >= ((slot - gap) & index->mask)) {
            index->slots[gap] = index->slots[slot];
            gap = slot;
        }
    }
    index->slots[gap] = 0;
}

/* The logarithm of an index's size: at most half of it is full. */
static int index_bits(int64_t keys)
{
    int bits = 1;
    while (((int64_t)1 << bits) < 2 * keys)
        bits++;
    return bits;
}

static Index index_make(int64_t *slots, int bits, const int64_t *keys, size_t stride)
{
    return (Index){slots, keys, stride, ((size_t)1 << bits) - 1, BITS - bits};
}

static void index_clear(Index *index)
{
    memset(index->slots, 0, (index->mask + 1) * sizeof *index->slots);
}

/* -- the order of use --------------------------------------------------------------------------------------------- */

static inline int64_t *row_at(Table *table, int64_t row)
{
    return table->rows + row * ROW_FIELDS;
}

static inline void unlink_row(Table *table, const int64_t *record)
{
    row_at(table, record[OLDER])[NEWER] = record[NEWER];
    row_at(table, record[NEWER])[OLDER] = record[OLDER];
}

/* Put a row at the new end, used in this step. */
static inline void link_newest(Table *table, int64_t row, int64_t step)
{
    int64_t *record = row_at(table, row), *ends = row_at(table, table->capacity);
    record[OLDER] = ends[OLDER];
    record[NEWER] = table->capacity;
    record[USED] = step;
    row_at(table, ends[OLDER])[NEWER] = row;
    ends[OLDER] = row;
    table->steps_rise = table->steps_rise && step >= table->latest;
    table->latest = step;
}

static inline void use_row(Table *table, int64_t row, int64_t step)
{
    unlink_row(table, row_at(table, row));
    link_newest(table, row, step);
}

/* There must be a free row. */
static int64_t add_entry(Table *table, int64_t key, int64_t step)
{
    int64_t row = table->free;
    if (row == ABSENT)
        row = table->unused++;
    else
        table->free = row_at(table, row)[NEWER];
    row_at(table, row)[KEY] = key;
    index_add(&table->index, key, row);
    link_newest(table, row, step);
    table->held++;
    return row;
}

static void drop_entry(Table *table, int64_t row)
{
    int64_t *record = row_at(table, row);
    index_remove(&table->index, record[KEY]);
    unlink_row(table, record);
    record[NEWER] = table->free;
    table->free = row;
    table->held--;
}

/* -- the ring of evicted keys -------------------------------------------------------------------------------------- */

static inline bool is_live(const Table *table, int64_t position)
{
    return table->live[position / BITS] >> (position % BITS) & 1;
}

static void ring_remove(Table *table, int64_t position)
{
    index_remove(&table->evicted, table->log[position]);
    table->live[position / BITS] &= ~((uint64_t)1 << (position % BITS));
    table->in_ring--;
}

static void ring_append(Table *table, int64_t key)
{
    int64_t position = table->end++;
    table->log[position] = key;
    table->live[position / BITS] |= (uint64_t)1 << (position % BITS);
    index_add(&table->evicted, key, position);
    table->in_ring++;
}

static int64_t ring_oldest(Table *table)
{
    while (!is_live(table, table->begin))
        table->begin++;
    return table->begin;
}

static void ring_compact(Table *table)
{
    int64_t end = table->end, kept = 0;
    for (int64_t position = table->begin; position < end; position++)
        if (is_live(table, position))
            table->log[kept++] = table->log[position];
    index_clear(&table->evicted);
    memset(table->live, 0, (size_t)table->words * sizeof *table->live);
    table->begin = table->end = table->in_ring = 0;
    for (int64_t position = 0; position < kept; position++)
        ring_append(table, table->log[position]);
}

/* Remember a key: one that is there moves to the new end, and the oldest makes room for another. */
static void ring_add(Table *table, int64_t key)
{
    if (!table->remembered)
        return;
    int64_t position = index_find(&table->evicted, key);
    if (position != ABSENT)
        ring_remove(table, position);
    else if (table->in_ring == table->remembered)
        ring_remove(table, ring_oldest(table));
    if (table->end == table->words * BITS)
        ring_compact(table);
    ring_append(table, key);
}

static void ring_clear(Table *table)
{
    index_clear(&table->evicted);
    memset(table->live, 0, (size_t)table->words * sizeof *table->live);
    table->begin = table->end = table->in_ring = 0;
}

static inline int64_t ones(uint64_t word)
{
    return __builtin_popcountll(word);
}

static void count_later(Table *table)
{
    int64_t later = 0;
    for (int64_t word = (table->end - 1) / BITS; word >= table->begin / BITS; word--) {
        table->later[word] = later;
        later += ones(table->live[word]);
    }
}

/* The keys that were evicted after the one at a position; count_later() was called, and nothing has left since. */
static inline int64_t evicted_later(const Table *table, int64_t position)
{
    return table->later[position / BITS] + ones(table->live[position / BITS] >> (position % BITS)) - 1;
}

/* -- the table: what Python calls ---------------------------------------------------------------------------------- */

static void table_reset(Table *table)
{
    index_clear(&table->index);
    ring_clear(table);
    int64_t *ends = row_at(table, table->capacity);
    ends[OLDER] = ends[NEWER] = table->capacity;
    table->held = table->unused = 0;
    table->free = ABSENT;
    table->latest = INT64_MIN;
    table->steps_rise = true;
}

/* Take a new bytearray of Python's, of so many int64 of any value: what is never used takes no memory. */
static int take_new(Numbers *numbers, int64_t count)
{
    PyObject *owner = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(count * 8));
    if (owner == NULL)
        return -1;
    int taken = numbers_take(numbers, owner, 'B', (Py_ssize_t)(count * 8));
    Py_DECREF(owner);
    return taken;
}

/* Lay the parts out in one block of memory, a bytearray of Python's. */
static int table_allocate(Table *table)
{
    int index_size = index_bits(table->capacity), ring_size = index_bits(table->remembered);
    table->words = (2 * table->remembered + BITS - 1) / BITS;
    int64_t sizes[] = {
        (int64_t)1 << index_size, (table->capacity + 1) * ROW_FIELDS, (int64_t)1 << ring_size, table->words * BITS,
        table->words, table->words, table->bound_count,
    };
    int64_t *starts[sizeof sizes / sizeof *sizes], total = 0;
    for (size_t part = 0; part < sizeof sizes / sizeof *sizes; part++)
        total += sizes[part];
    if (take_new(&table->memory, total) < 0)
        return -1;
    int64_t *next = table->memory.longs;
    for (size_t part = 0; part < sizeof sizes / sizeof *sizes; part++) {
        starts[part] = next;
        next += sizes[part];
    }
    table->rows = starts[1];
    table->log = starts[3];
    table->live = (uint64_t *)starts[4];
    table->later = starts[5];
    table->bounds = starts[6];
    table->index = index_make(starts[0], index_size, table->rows + KEY, ROW_FIELDS);
    table->evicted = index_make(starts[2], ring_size, table->log, 1);
    return 0;
}

static PyObject *table_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    long long capacity, remembered;
    PyObject *bounds;
    if (named != NULL && PyDict_Size(named) > 0) {
        PyErr_SetString(PyExc_TypeError, "KeyTable takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "LLO!:KeyTable", &capacity, &remembered, &PyTuple_Type, &bounds))
        return NULL;
    if (capacity < 1 || capacity > ROOM_MOST || remembered < 0 || remembered > ROOM_MOST)
        return PyErr_Format(PyExc_ValueError, "a table of %lld entries and %lld evicted keys can't be made", capacity,
                            remembered);
    if (PyTuple_Size(bounds) > BOUNDS_MOST)
        return PyErr_Format(PyExc_ValueError, "there can be %d bounds at most", BOUNDS_MOST);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Table *table = (Table *)allocate(type, 0);
    if (table == NULL)
        return NULL;
    table->capacity = capacity;
    table->remembered = remembered;
    table->bound_count = PyTuple_Size(bounds);
    if (table_allocate(table) < 0) {
        Py_DECREF(table);
        return NULL;
    }
    for (int64_t bound = 0; bound < table->bound_count; bound++) {
        table->bounds[bound] = PyLong_AsLongLong(PyTuple_GetItem(bounds, bound));
        if (PyErr_Occurred()) {
            Py_DECREF(table);
            return NULL;
        }
    }
    table_reset(table);
    return (PyObject *)table;
}

static void table_dealloc(Table *table)
{
    PyTypeObject *type = Py_TYPE((PyObject *)table);
    numbers_release(&table->memory);
    numbers_release(&table->seen);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(table);
    Py_DECREF(type);
}

static Py_ssize_t table_length(Table *table)
{
    return (Py_ssize_t)table->held;
}

PyDoc_STRVAR(fetch_doc, "fetch(keys, count, rows, step): see the twin.");

static PyObject *table_fetch(Table *table, PyObject *const *args, Py_ssize_t arg_count)
{
    int64_t count, step, hits = 0;
    Numbers both[2];
    if (check_count(arg_count, 4, "fetch") < 0 || take_whole(&count, args[1], 0, ROOM_MOST) < 0 ||
        take_whole(&step, args[3], INT64_MIN, INT64_MAX) < 0)
        return NULL;
    PyObject *owners[] = {args[0], args[2]};
    if (take_all(both, owners, 2, count, count) < 0)
        return NULL;
    const int64_t *keys = both[0].longs;
    int64_t *rows = both[1].longs;
    for (int64_t at = 0; at < count; at++) {
        int64_t row = index_find(&table->index, keys[at]);
        rows[at] = row == ABSENT ? table->capacity : row;
        if (row != ABSENT) {
            use_row(table, row, step);
            hits++;
        }
    }
    release_all(both, 2);
    return PyLong_FromLongLong(hits);
}

/* Write the index of each key's last occurrence, ascending; returns their number. `slots` is cleared here. */
static int64_t last_indices(const int64_t *keys, int64_t count, int64_t *indices, int64_t *slots, int bits)
{
    Index seen = index_make(slots, bits, keys, 1);
    index_clear(&seen);
    int64_t first = count;
    for (int64_t at = count; at-- > 0;) {
        size_t slot = slot_of(&seen, keys[at]);
        if (seen.slots[slot])
            continue;
        seen.slots[slot] = at + 1;
        indices[--first] = at;
    }
    if (first > 0)
        memmove(indices, indices + first, (size_t)(count - first) * sizeof *indices);
    return count - first;
}

static void note_evicted(Table *table, int64_t key, int64_t *evicted, int64_t *report)
{
    evicted[report[EVICTIONS]++] = key;
    ring_add(table, key);
}

/* Look up distinct keys: which are held, and which of the others were evicted; the latter leave the ring. A false
 * eviction's distance is that of before the call, whichever others leave with it. */
static void look_up(Table *table, const int64_t *keys, const int64_t *sources, int64_t count, int64_t *rows,
                    int64_t step, int64_t *report)
{
    int64_t bucket = 0;
    for (int64_t at = 0; at < count; at++) {
        int64_t key = keys[sources[at]], row = index_find(&table->index, key);
        rows[at] = row;
        if (row != ABSENT) {
            use_row(table, row, step); /* not among the least recently used ones that make room */
            continue;
        }
        report[FRESH]++;
        int64_t position = table->in_ring ? index_find(&table->evicted, key) : ABSENT;
        if (position == ABSENT)
            continue;
        if (!report[FALSE_EVICTIONS]++)
            count_later(table);
        int64_t distance = evicted_later(table, position) + 1;
        while (bucket < table->bound_count && table->bounds[bucket] < distance) /* mostly that of the key before */
            bucket++;
        while (bucket > 0 && table->bounds[bucket - 1] >= distance)
            bucket--;
        report[BUCKETS + bucket]++;
        report[REUSE_SUM] += distance;
        rows[at] = ABSENT - 1 - position;
    }
    for (int64_t at = 0; at < count && report[FALSE_EVICTIONS]; at++)
        if (rows[at] < ABSENT) {
            ring_remove(table, ABSENT - 1 - rows[at]);
            rows[at] = ABSENT;
        }
}

static void store_keys(Table *table, const int64_t *keys, const int64_t *sources, int64_t count, int64_t *rows,
                       int64_t *evicted, int64_t step, int64_t *report)
{
    look_up(table, keys, sources, count, rows, step, report);
    int64_t excess = table->held + report[FRESH] - table->capacity;
    int64_t surplus = count > table->capacity ? count - table->capacity : 0;
    /* If the call alone overflows the table, all other entries go, and then the first keys of the call itself. */
    for (int64_t others = excess - surplus; others > 0; others--) {
        int64_t row = row_at(table, table->capacity)[NEWER], key = row_at(table, row)[KEY];
        drop_entry(table, row);
        note_evicted(table, key, evicted, report);
    }
    for (int64_t at = 0; at < surplus; at++) {
        if (rows[at] != ABSENT)
            drop_entry(table, rows[at]);
        note_evicted(table, keys[sources[at]], evicted, report);
    }
    for (int64_t at = surplus; at < count; at++)
        if (rows[at] == ABSENT)
            rows[at] = add_entry(table, keys[sources[at]], step);
        else
            use_row(table, rows[at], step);
}

PyDoc_STRVAR(store_doc, "store(keys, count, sources, rows, evicted, step, report): see the twin.");

static PyObject *table_store(Table *table, PyObject *const *args, Py_ssize_t arg_count)
{
    int64_t count, step;
    Numbers all[5];
    if (check_count(arg_count, 7, "store") < 0 || take_whole(&count, args[1], 0, ROOM_MOST) < 0 ||
        take_whole(&step, args[5], INT64_MIN, INT64_MAX) < 0)
        return NULL;
    int64_t report_size = BUCKETS + table->bound_count + 1;
    PyObject *owners[] = {args[6], args[0], args[2], args[3], args[4]};
    if (take_all(all, owners, 5, report_size, count) < 0)
        return NULL;
    int bits = index_bits(count);
    if (table->seen.count < (int64_t)8 << bits && take_new(&table->seen, (int64_t)1 << bits) < 0) {
        release_all(all, 5);
        return NULL;
    }
    int64_t *report = all[0].longs, *sources = all[2].longs;
    memset(report, 0, (size_t)report_size * sizeof *report);
    int64_t distinct = last_indices(all[1].longs, count, sources, table->seen.longs, bits);
    store_keys(table, all[1].longs, sources, distinct, all[3].longs, all[4].longs, step, report);
    release_all(all, 5);
    return PyLong_FromLongLong(distinct);
}

/* Whether steps rise along the order; what was removed may have been what broke it. */
static void check_steps(Table *table)
{
    table->steps_rise = true;
    table->latest = INT64_MIN;
    for (int64_t row = row_at(table, table->capacity)[NEWER]; row != table->capacity; row = row_at(table, row)[NEWER]) {
        int64_t used = row_at(table, row)[USED];
        table->steps_rise = table->steps_rise && used >= table->latest;
        table->latest = used;
    }
}

PyDoc_STRVAR(move_doc, "move_step(old, new): see the twin.");

static PyObject *table_move_step(Table *table, PyObject *const *args, Py_ssize_t arg_count)
{
    int64_t old, new;
    if (check_count(arg_count, 2, "move_step") < 0 || take_whole(&old, args[0], INT64_MIN, INT64_MAX) < 0 ||
        take_whole(&new, args[1], INT64_MIN, INT64_MAX) < 0)
        return NULL;
    bool rise = table->steps_rise;
    for (int64_t row = row_at(table, table->capacity)[OLDER]; row != table->capacity; row = row_at(table, row)[OLDER]) {
        int64_t *record = row_at(table, row);
        if (record[USED] == old)
            record[USED] = new;
        else if (rise && record[USED] < old)
            break;
    }
    if (!rise || new < old || table->latest > old)
        check_steps(table);
    else if (table->latest == old)
        table->latest = new;
    Py_RETURN_NONE;
}

/* A new array of int64, of Python's. */
static PyObject *bytes_of(int64_t count, int64_t **numbers)
{
    PyObject *bytes = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(count * 8));
    if (bytes != NULL)
        *numbers = (int64_t *)PyByteArray_AsString(bytes);
    return bytes;
}

PyDoc_STRVAR(stale_doc, "evict_stale(before): see the twin.");

static PyObject *table_evict_stale(Table *table, PyObject *const *args, Py_ssize_t arg_count)
{
    int64_t before, stale = 0, *keys;
    if (check_count(arg_count, 1, "evict_stale") < 0 || take_whole(&before, args[0], INT64_MIN, INT64_MAX) < 0)
        return NULL;
    int64_t *ends = row_at(table, table->capacity);
    for (int64_t row = ends[NEWER]; row != table->capacity; row = row_at(table, row)[NEWER]) {
        stale += row_at(table, row)[USED] < before;
        if (table->steps_rise && row_at(table, row)[USED] >= before)
            break;
    }
    PyObject *evicted = bytes_of(stale, &keys);
    if (evicted == NULL)
        return NULL;
    int64_t count = 0;
    for (int64_t row = ends[NEWER], next; count < stale; row = next) {
        next = row_at(table, row)[NEWER];
        if (row_at(table, row)[USED] >= before)
            continue;
        keys[count++] = row_at(table, row)[KEY];
        drop_entry(table, row);
        ring_add(table, keys[count - 1]);
    }
    return evicted;
}

PyDoc_STRVAR(entries_doc, "entries(): see the twin.");

static PyObject *table_entries(Table *table, PyObject *Py_UNUSED(nothing))
{
    int64_t *numbers[3];
    PyObject *parts[3] = {NULL, NULL, NULL}, *result = NULL;
    for (int part = 0; part < 3; part++)
        if ((parts[part] = bytes_of(table->held, &numbers[part])) == NULL)
            goto done;
    int64_t at = 0;
    for (int64_t row = row_at(table, table->capacity)[NEWER]; row != table->capacity; row = row_at(table, row)[NEWER]) {
        numbers[0][at] = row_at(table, row)[KEY];
        numbers[1][at] = row;
        numbers[2][at++] = row_at(table, row)[USED];
    }
    result = PyTuple_Pack(3, parts[0], parts[1], parts[2]);
done:
    for (int part = 0; part < 3; part++)
        Py_XDECREF(parts[part]);
    return result;
}

PyDoc_STRVAR(ring_doc, "ring(): see the twin.");

static PyObject *table_ring(Table *table, PyObject *Py_UNUSED(nothing))
{
    int64_t *keys, at = 0;
    PyObject *bytes = bytes_of(table->in_ring, &keys);
    if (bytes == NULL)
        return NULL;
    for (int64_t position = table->begin; position < table->end; position++)
        if (is_live(table, position))
            keys[at++] = table->log[position];
    return bytes;
}

PyDoc_STRVAR(remembers_doc, "remembers(key): see the twin.");

static PyObject *table_remembers(Table *table, PyObject *key)
{
    int64_t value;
    if (take_whole(&value, key, INT64_MIN, INT64_MAX) < 0)
        return NULL;
    return PyBool_FromLong(index_find(&table->evicted, value) != ABSENT);
}

PyDoc_STRVAR(remember_doc, "remember(keys, count): see the twin.");

static PyObject *table_remember(Table *table, PyObject *const *args, Py_ssize_t arg_count)
{
    int64_t count;
    Numbers keys;
    if (check_count(arg_count, 2, "remember") < 0 || take_whole(&count, args[1], 0, ROOM_MOST) < 0 ||
        take_all(&keys, args, 1, count, count) < 0)
        return NULL;
    for (int64_t at = 0; at < count; at++)
        ring_add(table, keys.longs[at]);
    release_all(&keys, 1);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(restore_doc, "restore(keys, steps, count, rows): see the twin.");

static PyObject *table_restore(Table *table, PyObject *const *args, Py_ssize_t arg_count)
{
    int64_t count;
    Numbers numbers[3];
    if (check_count(arg_count, 4, "restore") < 0 || take_whole(&count, args[2], 0, table->capacity - table->held) < 0)
        return NULL;
    PyObject *owners[] = {args[0], args[1], args[3]};
    if (take_all(numbers, owners, 3, count, count) < 0)
        return NULL;
    bool distinct = true;
    for (int64_t at = 0; at < count && distinct; at++) {
        int64_t key = numbers[0].longs[at];
        distinct = index_find(&table->index, key) == ABSENT;
        if (distinct)
            numbers[2].longs[at] = add_entry(table, key, numbers[1].longs[at]);
    }
    release_all(numbers, 3);
    if (distinct)
        Py_RETURN_NONE;
    return PyErr_Format(PyExc_ValueError, "a key is there twice");
}

PyDoc_STRVAR(clear_doc, "clear(): see the twin.");

static PyObject *table_clear(Table *table, PyObject *Py_UNUSED(nothing))
{
    table_reset(table);
    Py_RETURN_NONE;
}

static PyObject *table_remembered(Table *table, void *Py_UNUSED(nothing))
{
    return PyLong_FromLongLong(table->in_ring);
}

static PyMethodDef table_methods[] = {
    {"fetch", FAST(table_fetch), METH_FASTCALL, fetch_doc},
    {"store", FAST(table_store), METH_FASTCALL, store_doc},
    {"move_step", FAST(table_move_step), METH_FASTCALL, move_doc},
    {"evict_stale", FAST(table_evict_stale), METH_FASTCALL, stale_doc},
    {"entries", FAST(table_entries), METH_NOARGS, entries_doc},
    {"ring", FAST(table_ring), METH_NOARGS, ring_doc},
    {"remembers", FAST(table_remembers), METH_O, remembers_doc},
    {"remember", FAST(table_remember), METH_FASTCALL, remember_doc},
    {"restore", FAST(table_restore), METH_FASTCALL, restore_doc},
    {"clear", FAST(table_clear), METH_NOARGS, clear_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef table_attributes[] = {
    {"remembered", (getter)table_remembered, NULL, "Number of evicted keys that are remembered now.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot table_slots[] = {
    {Py_tp_doc, "Keys of one rank's ledger: see ledger/key_table.py."},
    {Py_tp_new, table_new},
    {Py_tp_dealloc, table_dealloc},
    {Py_tp_methods, table_methods},
    {Py_tp_getset, table_attributes},
    {Py_sq_length, table_length},
    {0, NULL},
};

static PyType_Spec table_spec = {
    .name = "otel_train.native._core.KeyTable",
    .basicsize = sizeof(Table),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = table_slots,
};

int add_ledger(PyObject *module)
{
    return add_type(module, &table_spec, NULL);
}
