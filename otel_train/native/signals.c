/* Signals that would end the process at once: the callers are in step/signal_watch.py.
 *
 * A handler of Python's runs when the main thread is back in the interpreter, which a collective whose peer has gone
 * never is. This one runs at once, in whichever thread the system has chosen: it writes a byte into a pipe that a
 * thread of Python's reads, and has the process end by the signal after a bound of time, whatever that thread does.
 *
 * Python knows nothing of it: signal.getsignal says what it said, and signal.signal takes the signal away from here.
 * A handler can't be given an object, so that what it needs is the file's own.
 */
#define _DEFAULT_SOURCE /* on_exit */
#include "core.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Where a ring's header has the name of what ended its session; see ring/file_format.py. */
#define MAGIC "OTELTRN1"
enum { ERROR_OFFSET = 208, ERROR_SIZE = 48, HEADER_SIZE = 4096 };

static struct {
    volatile pid_t owner; /* a forked child has its parent's handlers, and must not have its parent end */
    volatile int pipe;
    volatile long bound_ns;
    volatile sig_atomic_t came; /* whether a signal has come: further ones change nothing */
    volatile pid_t exiting;     /* process whose exit code is noted; a forked child has its parent's handlers too */
    volatile int timer;         /* what ends the process after the bound; -1: nothing */
} watch = {.pipe = -1, .timer = -1};

/* Have the kernel send the signal once more after the bound, for Python may not come to it; tell whether it will. */
static bool begin_bound(int number)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = number};
    event.sigev_value.sival_ptr = &watch;
    struct itimerspec bound = {.it_value = {watch.bound_ns / 1000000000, watch.bound_ns % 1000000000}};
    int timer; /* the kernel's: the C library's calls take memory, which a handler must not */
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) != 0)
        return false; /* the user has as many pending signals as `ulimit -i` allows */
    watch.timer = timer;
    return syscall(SYS_timer_settime, timer, 0, &bound, NULL) == 0;
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)context;
    int before = errno;
    bool over = info->si_code == SI_TIMER && info->si_value.sival_ptr == &watch;
    char byte = (char)number;
    if (!over && watch.pipe >= 0 && getpid() == watch.owner) {
        if (watch.came) {
            errno = before;
            return;
        }
        watch.came = 1;
        over = !begin_bound(number) || write(watch.pipe, &byte, 1) != 1;
    } else {
        over = true;
    }
    if (over) {
        struct sigaction plain = {.sa_handler = SIG_DFL};
        sigaction(number, &plain, NULL);
        raise(number); /* ends the process when this returns */
    }
    errno = before;
}

static bool is_plain(const struct sigaction *action)
{
    return !(action->sa_flags & SA_SIGINFO) && action->sa_handler == SIG_DFL;
}

/* Tell whether a signal is one of those that are watched; an error is set for another. */
static bool is_ours(int64_t number)
{
    if (number == SIGTERM || number == SIGHUP)
        return true;
    PyErr_SetString(PyExc_ValueError, "only SIGTERM and SIGHUP are watched");
    return false;
}

static PyObject *watch_signal(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    int64_t number, pipe, bound_ns;
    if (check_count(count, 3, "watch_signal") < 0)
        return NULL;
    if (!whole(args[0], &number) || !whole(args[1], &pipe) || !whole(args[2], &bound_ns) || bound_ns < 1) {
        PyErr_SetString(PyExc_TypeError, "watch_signal() takes a signal, a descriptor and nanoseconds");
        return NULL;
    }
    if (!is_ours(number))
        return NULL;
    struct sigaction before, ours = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    if (sigaction((int)number, NULL, &before) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (!is_plain(&before))
        Py_RETURN_FALSE;
    watch.owner = getpid();
    watch.pipe = (int)pipe;
    watch.bound_ns = (long)bound_ns;
    if (sigaction((int)number, &ours, NULL) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_TRUE;
}

static PyObject *leave_signal(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    int64_t number;
    if (check_count(count, 1, "leave_signal") < 0)
        return NULL;
    if (!whole(args[0], &number)) {
        PyErr_SetString(PyExc_TypeError, "leave_signal() takes a signal");
        return NULL;
    }
    if (!is_ours(number))
        return NULL;
    struct sigaction present, plain = {.sa_handler = SIG_DFL};
    if (sigaction((int)number, NULL, &present) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    watch.pipe = -1; /* who has taken the signal may still pass it on */
    bool ours = (present.sa_flags & SA_SIGINFO) && present.sa_sigaction == on_signal;
    if (ours && sigaction((int)number, &plain, NULL) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyBool_FromLong(ours);
}

static PyObject *signal_came(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(watch.came && getpid() == watch.owner);
}

/* Forget that a signal has come: nothing is watched yet, or the process goes on after all. */
static PyObject *forget_signal(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (watch.timer >= 0 && getpid() == watch.owner) /* a forked child has none of its parent's timers */
        syscall(SYS_timer_delete, watch.timer);
    watch.timer = -1;
    watch.came = 0;
    Py_RETURN_NONE;
}

/* Write the code that the process exits with into a ring whose session ends with the process, and without an exception:
 * the interpreter keeps no SystemExit where Python's own hooks could see it. The page is mapped until then. */
static void on_end(int status, void *page)
{
    char *error = (char *)page + ERROR_OFFSET;
    if ((status & 255) && !error[0] && getpid() == watch.exiting)
        snprintf(error, ERROR_SIZE, "SystemExit(%d)", status & 255);
}

static PyObject *note_exit(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    int64_t descriptor;
    if (check_count(count, 1, "note_exit") < 0)
        return NULL;
    if (!whole(args[0], &descriptor)) {
        PyErr_SetString(PyExc_TypeError, "note_exit() takes a descriptor");
        return NULL;
    }
    struct stat file;
    if (descriptor < 0 || descriptor > INT_MAX || fstat((int)descriptor, &file) != 0 || !S_ISREG(file.st_mode)
        || file.st_size < HEADER_SIZE)
        Py_RETURN_FALSE;
    void *page = mmap(NULL, HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, (int)descriptor, 0);
    if (page == MAP_FAILED)
        Py_RETURN_FALSE;
    watch.exiting = getpid();
    bool noted = false;
#ifdef __GLIBC__
    noted = memcmp(page, MAGIC, sizeof(MAGIC) - 1) == 0 && on_exit(on_end, page) == 0;
#else
    (void)on_end;
#endif
    if (!noted)
        munmap(page, HEADER_SIZE);
    return PyBool_FromLong(noted);
}

PyDoc_STRVAR(note_doc, "note_exit(descriptor): see RingWriter.close.");
PyDoc_STRVAR(watch_doc, "watch_signal(number, pipe, bound_ns): see step/signal_watch.py.");
PyDoc_STRVAR(leave_doc, "leave_signal(number): see step/signal_watch.py.");
PyDoc_STRVAR(came_doc, "signal_came(): see step/signal_watch.py.");
PyDoc_STRVAR(forget_doc, "forget_signal(): see step/signal_watch.py.");

static PyMethodDef functions[] = {
    {"watch_signal", (PyCFunction)(void (*)(void))watch_signal, METH_FASTCALL, watch_doc},
    {"leave_signal", (PyCFunction)(void (*)(void))leave_signal, METH_FASTCALL, leave_doc},
    {"signal_came", signal_came, METH_NOARGS, came_doc},
    {"forget_signal", forget_signal, METH_NOARGS, forget_doc},
    {"note_exit", (PyCFunction)(void (*)(void))note_exit, METH_FASTCALL, note_doc},
    {NULL, NULL, 0, NULL},
};

int add_signals(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
