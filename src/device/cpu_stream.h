/* Asynchronous streams of virtual devices.
 *
 * DESIGN
 *   A stream is a ring of commands and a worker thread that runs them in order. One host thread pushes;
 *   the worker pops. A full ring makes the host wait, as a full launch queue does on a GPU.
 *   Events: `record` counts up `recorded` when it is enqueued and `completed` when the worker passes it;
 *   `wait` remembers the count at the time it is enqueued and the worker parks until `completed` reaches
 *   it. So waiting for what nobody has recorded yet is a no-op, as in CUDA, and nothing but events orders
 *   two workers: a forgotten wait is a data race that ThreadSanitizer sees. Library code that it cannot
 *   see through is announced operand by operand before it runs. Failures: an operation that fails raises
 *   the fault word of its launch; later commands with that word are skipped. Shutdown: closing the ring
 *   lets the worker finish what is enqueued; an abandoned device makes it drop the rest. */
#ifndef VD_DEVICE_CPU_STREAM_H
#define VD_DEVICE_CPU_STREAM_H

#include "device/cpu.h"

/* An event of this backend. Waiting for a completion must not say more about the device than that
 * completion, even when later ones are through (cpu_tsan.h): each is handed over by an address of its
 * own. */
enum { VD_CPU_PASSES = 8 }; /* more than a wait can lie behind */
typedef struct vd_cpu_event {
    vd_event base;
    char passes[VD_CPU_PASSES]; /* never read; by count of completions, modulo */
} vd_cpu_event;

/* A program bound to memory on one device. */
struct vd_exec {
    const vd_program *program;
    vd_cpu_plan *const *plans; /* [op_count], owned by the compiled program */
    void **at;                 /* [value_count] */
    void *scratch;
};

/* `cpu`: logical CPU of the worker or VD_ANY_CPU. `abandoned` belongs to the device and outlives the
 * stream. */
vd_code vd_cpu_stream_open(vd_device *d, vd_cpu_library *library, const char *name, int cpu,
                           _Atomic uint32_t *abandoned, vd_stream **out, vd_error *err);

/* Entries of the device table. */
void vd_cpu_stream_close(vd_stream *s);
vd_code vd_cpu_stream_drain(vd_stream *s, vd_error *err);
vd_code vd_cpu_stream_record(vd_stream *s, vd_event *e, vd_error *err);
vd_code vd_cpu_stream_wait(vd_stream *s, vd_event *e, vd_error *err);
vd_code vd_cpu_stream_copy(vd_stream *s, vd_copy_kind kind, void *to, const void *from, size_t bytes,
                           vd_fault *fault, vd_error *err);
vd_code vd_cpu_stream_copy_peer(vd_stream *s, vd_device *to_device, void *to, const void *from, size_t bytes,
                                vd_fault *fault, vd_error *err);
vd_code vd_cpu_stream_notify(vd_stream *s, void (*call)(void *argument), void *argument, vd_error *err);
vd_code vd_cpu_stream_launch(vd_stream *s, vd_exec *x, vd_fault *fault, vd_error *err);

#endif
