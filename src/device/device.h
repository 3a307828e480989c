/* Devices: memory, streams, events, copies, and programs. One table of functions per backend; whoever
 * calls never asks which it is. The rules are CUDA's, also on the CPU: work is enqueued from one host
 * thread per stream and runs asynchronously in order; only events order streams against each other;
 * waiting for an event that nobody has recorded yet is a no-op, so the order is record, publish, wait.
 * Memory, streams, events and programs may be opened and closed from any thread while other streams of the
 * device work. */
#ifndef VD_DEVICE_DEVICE_H
#define VD_DEVICE_DEVICE_H

#include "base/error.h"
#include "base/log.h"
#include "device/program.h"

#include <stdatomic.h>

typedef struct vd_device vd_device;
typedef struct vd_stream vd_stream;
typedef struct vd_event vd_event;
typedef struct vd_compiled vd_compiled;
typedef struct vd_exec vd_exec;

/* Where failures on a stream are collected: one per sample in flight. The first failure wins; launches and
 * copies that name a failed word are skipped, so a broken sample drains through the schedule without
 * harming others. */
typedef struct vd_fault {
    _Atomic int state; /* 0: well; 1: being written; 2: failed, `error` is readable */
    vd_error error;
} vd_fault;

void vd_fault_clear(vd_fault *fault);
void vd_fault_raise(vd_fault *fault, const vd_error *error);
bool vd_fault_failed(const vd_fault *fault);

typedef enum vd_copy_kind { VD_TO_DEVICE, VD_TO_HOST, VD_ON_DEVICE } vd_copy_kind;

typedef struct vd_binding {
    vd_value value; /* an external of the program */
    void *memory;   /* device memory of at least the value's bytes */
} vd_binding;

typedef struct vd_device_table {
    void (*close)(vd_device *d); /* after everything opened on it */
    /* The device is lost: its streams drop what is enqueued as soon as they can, so that closing them
     * cannot hang. */
    void (*abandon)(vd_device *d);
    /* An error that came up while the device worked; whoever enqueues next would hear of it too. NULL: there
     * are none. */
    vd_code (*check)(vd_device *d, vd_error *err);

    vd_code (*allocate)(vd_device *d, size_t bytes, void **memory, vd_error *err); /* zeroed on the CPU */
    void (*release)(vd_device *d, void *memory);

    vd_code (*stream_open)(vd_device *d, const char *name, vd_stream **out, vd_error *err);
    void (*stream_close)(vd_stream *s); /* waits for what is enqueued */
    vd_code (*stream_drain)(vd_stream *s,
                            vd_error *err); /* the host waits until all is done; not in the loop */

    vd_code (*event_open)(vd_device *d, vd_event **out, vd_error *err);
    void (*event_close)(vd_event *e);
    vd_code (*record)(vd_stream *s, vd_event *e, vd_error *err);
    vd_code (*wait)(vd_stream *s, vd_event *e,
                    vd_error *err); /* e may belong to any device of the same backend */

    vd_code (*copy)(vd_stream *s, vd_copy_kind kind, void *to, const void *from, size_t bytes,
                    vd_fault *fault, vd_error *err);
    vd_code (*copy_peer)(vd_stream *s, vd_device *to_device, void *to, const void *from, size_t bytes,
                         vd_fault *fault, vd_error *err);
    /* Runs `call(argument)` when the stream gets there; it must be short and must not use the device. */
    vd_code (*notify)(vd_stream *s, void (*call)(void *argument), void *argument, vd_error *err);

    /* Compiling the same program again, on any device that shares plans, gives the same object. Threads
     * that compile or load the same program at the same time share the work. Open and close compiled
     * programs in pairs, and before the program is freed. */
    vd_code (*compile)(vd_device *d, const vd_program *p, vd_compiled **out, vd_error *err);
    void (*compiled_close)(vd_device *d, vd_compiled *c);
    vd_code (*load)(vd_device *d, vd_compiled *c, vd_error *err);
    /* Every external must be bound; `arena` has vd_compiled_arena bytes and is shared by whatever else
     * runs on the same stream. */
    vd_code (*exec_open)(vd_device *d, vd_compiled *c, void *arena, const vd_binding *bindings, int count,
                         vd_exec **out, vd_error *err);
    void (*exec_close)(vd_device *d, vd_exec *x);
    vd_code (*launch)(vd_stream *s, vd_exec *x, vd_fault *fault, vd_error *err);
} vd_device_table;

/* First member of every backend's device, stream and event. */
struct vd_device {
    const vd_device_table *table;
    char name[16];            /* "cpu:3" */
    _Atomic size_t allocated; /* bytes now */
    _Atomic size_t peak;
    _Atomic uint32_t operations; /* run so far: tells a slow device from one that stands still */
};
struct vd_stream {
    vd_device *device;
};
struct vd_event {
    vd_device *device;
    _Atomic uint32_t recorded;  /* how often record was enqueued */
    _Atomic uint32_t completed; /* how many of these the device has passed; parked on by waiters */
    _Atomic double seconds;     /* vd_now() of the last completion */
};

/* A program made ready for a backend: kernels chosen, sizes known, weights not yet loaded. Shared by all
 * devices that run it and immutable after vd_load. */
struct vd_compiled {
    const vd_program *program;
    size_t workspace_bytes; /* scratch that any of its operations needs */
    vd_compiled *next;      /* in the backend's list */
    int users;              /* compile calls less close calls; both guarded by the backend's lock */
};

/* For backends, under their lock. The entry of `p` with one user more; NULL: there is none. */
vd_compiled *vd_compiled_join(vd_compiled *list, const vd_program *p);
/* A new entry with one user. */
void vd_compiled_add(vd_compiled **list, vd_compiled *c);
/* One user less; true: it was the last, and `c` is out of the list. */
bool vd_compiled_leave(vd_compiled **list, vd_compiled *c);

/* For backends: `bytes` more are allocated on `d`. */
void vd_device_took(vd_device *d, size_t bytes);

/* Arena for one device: activations then workspace, for the largest of the programs that share it. */
static inline size_t vd_compiled_arena(const vd_compiled *c) {
    return c->program->arena_bytes + c->workspace_bytes;
}

/* For backends: where each value of a program is. `at` [value_count] holds the constants' places already and
 * receives the externals as bound, arena values and views. Fails when an external is not bound. */
vd_code vd_bind_values(const vd_program *p, void *arena, const vd_binding *bindings, int count, void **at,
                       vd_error *err);

/* Host side of events. Not for use inside the loop. */
bool vd_event_done(
    const vd_event *e); /* everything recorded so far has completed (true when never recorded) */
/* Waits at most `timeout_s` (negative: for ever); false: timed out. */
bool vd_event_wait_host(vd_event *e, double timeout_s);
double vd_event_seconds(const vd_event *e);

/* A wrapper of any device that injects one kind of fault; closes the inner device with itself. */
typedef enum vd_fault_kind {
    VD_INJECT_NOTHING,
    VD_INJECT_LAUNCH_FAILS, /* the k-th launch fails its sample */
    VD_INJECT_COPY_DROPPED, /* the k-th peer copy reports success and moves nothing: what lay there stays */
    VD_INJECT_COPY_ZEROED,  /* the k-th peer copy arrives as zeros */
    VD_INJECT_COPY_FLIPPED, /* the k-th peer copy arrives with one bit flipped */
    VD_INJECT_NEVER_FIRES,  /* the k-th record never completes */
    VD_INJECT_WAIT_DROPPED, /* the k-th wait is forgotten */
    VD_INJECT_NO_MEMORY,    /* the k-th allocation fails */
    VD_INJECT_LOST,         /* the k-th launch and whatever is enqueued on the device after it fail */
} vd_fault_kind;
vd_code vd_faulty_device_open(vd_device *inner, vd_fault_kind kind, int k, vd_device **out, vd_error *err);

#endif
