/* Ids and keys: their hashing, the strings that were seen, the route to the owners. The twins: ledger/hashing.py and
 * routing.py. */
#include "ledger.h"

/* The step and finaliser of SplitMix64, as splitmix.py has them. */
static inline int64_t mixed(int64_t id)
{
    uint64_t value = splitmix((uint64_t)id + SPLITMIX_INCREMENT);
    int64_t key;
    memcpy(&key, &value, sizeof key);
    return key;
}

PyDoc_STRVAR(mix_doc, "mix_ids(ids, count): turn ids into keys, in place.");

static PyObject *mix_ids(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    int64_t count;
    Numbers ids;
    if (check_count(arg_count, 2, "mix_ids") < 0 || take_whole(&count, args[1], 0, ROOM_MOST) < 0 ||
        take_all(&ids, args, 1, count, count) < 0)
        return NULL;
    for (int64_t at = 0; at < count; at++)
        ids.longs[at] = mixed(ids.longs[at]);
    release_all(&ids, 1);
    Py_RETURN_NONE;
}

typedef struct {
    PyObject *young, *old, *hash;
    Py_ssize_t most, longest;
} Seen;

/* A new reference to the key of a string, which one of the two generations has or `hash` makes. */
static PyObject *key_of_text(const Seen *seen, PyObject *id)
{
    PyObject *key = PyDict_GetItemWithError(seen->young, id);
    if (key != NULL)
        return Py_NewRef(key);
    if (PyErr_Occurred())
        return NULL;
    key = PyDict_GetItemWithError(seen->old, id);
    if (key != NULL)
        Py_INCREF(key);
    else if (PyErr_Occurred() || (key = PyObject_CallFunctionObjArgs(seen->hash, id, NULL)) == NULL)
        return NULL;
    if (PyDict_Size(seen->young) < seen->most && PyUnicode_GetLength(id) <= seen->longest &&
        PyDict_SetItem(seen->young, id, key) < 0) {
        Py_DECREF(key);
        return NULL;
    }
    return key;
}

/* The key of an id; whatever is neither a string nor a number of 64 bits, exactly, is for `hash` to judge. */
static int hash_id(const Seen *seen, PyObject *id, int64_t *key)
{
    int64_t number;
    if (whole(id, &number)) {
        *key = mixed(number);
        return 0;
    }
    PyObject *hashed = PyUnicode_CheckExact(id) ? key_of_text(seen, id)
                                                : PyObject_CallFunctionObjArgs(seen->hash, id, NULL);
    if (hashed == NULL)
        return -1;
    *key = PyLong_AsLongLong(hashed);
    Py_DECREF(hashed);
    return *key == -1 && PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(hash_doc, "hash_ids(ids, keys, young, old, most, longest, hash): see the twin.");

static PyObject *hash_ids(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    if (check_count(arg_count, 7, "hash_ids") < 0)
        return NULL;
    PyObject *ids = args[0];
    bool is_list = PyList_CheckExact(ids);
    if ((!is_list && !PyTuple_CheckExact(ids)) || !PyDict_CheckExact(args[2]) || !PyDict_CheckExact(args[3])) {
        PyErr_SetString(PyExc_TypeError, "hash_ids() takes a list or a tuple, and two dicts");
        return NULL;
    }
    Seen seen = {args[2], args[3], args[6], PyLong_AsSsize_t(args[4]), PyLong_AsSsize_t(args[5])};
    if (PyErr_Occurred())
        return NULL;
    Py_ssize_t count = is_list ? PyList_Size(ids) : PyTuple_Size(ids);
    Numbers keys;
    if (take_all(&keys, &args[1], 1, count, count) < 0)
        return NULL;
    for (Py_ssize_t at = 0; at < count; at++) {
        /* An odd id runs code of the user's own, which may shorten the list: the index is checked each time. */
        PyObject *id = is_list ? PyList_GetItem(ids, at) : PyTuple_GetItem(ids, at);
        int done = -1;
        if (id != NULL) {
            Py_INCREF(id);
            done = hash_id(&seen, id, &keys.longs[at]);
            Py_DECREF(id);
        }
        if (done < 0) {
            release_all(&keys, 1);
            return NULL;
        }
    }
    release_all(&keys, 1);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(route_doc, "route(keys, count, order, inverse, sent, sends): see the twin.");

static PyObject *route(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    int64_t count;
    Numbers numbers[5];
    if (check_count(arg_count, 6, "route") < 0 || take_whole(&count, args[1], 0, ROOM_MOST) < 0)
        return NULL;
    PyObject *owners[] = {args[5], args[0], args[2], args[3], args[4]};
    if (take_all(numbers, owners, 5, 1, count) < 0)
        return NULL;
    const int64_t *keys = numbers[1].longs;
    int64_t *sends = numbers[0].longs, *order = numbers[2].longs, *inverse = numbers[3].longs, *sent = numbers[4].longs;
    uint64_t ranks = (uint64_t)numbers[0].count;
    memset(sends, 0, (size_t)ranks * sizeof *sends);
    for (int64_t at = 0; at < count; at++)
        sends[(uint64_t)keys[at] % ranks]++;
    /* Until the end a rank's number is where its next key goes. */
    int64_t start = 0;
    for (uint64_t rank = 0; rank < ranks; rank++) {
        int64_t own = sends[rank];
        sends[rank] = start;
        start += own;
    }
    for (int64_t at = 0; at < count; at++) {
        int64_t to = sends[(uint64_t)keys[at] % ranks]++;
        order[to] = at;
        inverse[at] = to;
        sent[to] = keys[at];
    }
    for (uint64_t rank = ranks; rank-- > 1;)
        sends[rank] -= sends[rank - 1];
    release_all(numbers, 5);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"mix_ids", FAST(mix_ids), METH_FASTCALL, mix_doc},
    {"hash_ids", FAST(hash_ids), METH_FASTCALL, hash_doc},
    {"route", FAST(route), METH_FASTCALL, route_doc},
    {NULL, NULL, 0, NULL},
};

int add_ids(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
