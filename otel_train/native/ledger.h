/* What the files of the ledger share. */
#ifndef OTEL_TRAIN_LEDGER_H
#define OTEL_TRAIN_LEDGER_H

#include "core.h"

#define ROOM_MOST ((int64_t)1 << 40)
#define FAST(function) ((PyCFunction)(void (*)(void))(function))

/* Take a whole number; returns -1 with an error set where it is none, or out of [least, most]. */
int take_whole(int64_t *value, PyObject *given, int64_t least, int64_t most);
/* Take `count` int64 buffers that don't overlap, the first one with at least `first` elements, each other with at least
 * `least`; none is held where it fails. */
int take_all(Numbers *numbers, PyObject *const *owners, size_t count, int64_t first, int64_t least);
void release_all(Numbers *numbers, size_t count);

#endif
