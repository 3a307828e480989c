#include "device/cpu_stream.h"

#include "base/ring.h"
#include "base/thread.h"
#include "device/cpu_tsan.h"

#include <stdlib.h>
#include <string.h>

enum {
    QUEUE_LENGTH = 1024,
    ABANDON_POLL_NS = 50 * 1000 * 1000, /* how soon a parked worker notices that its device was given up */
};

typedef enum command_kind { RUN_PROGRAM, COPY_BYTES, RECORD_EVENT, AWAIT_EVENT, CALL_HOST } command_kind;

typedef struct command {
    command_kind kind;
    vd_fault *fault; /* program and copy; may be NULL */
    union {
        vd_exec *exec;
        struct {
            void *to;
            const void *from;
            size_t bytes;
        } copy;
        vd_event *record;
        struct {
            vd_event *event;
            uint32_t target; /* value of `completed` to wait for */
        } await;
        struct {
            void (*function)(void *argument);
            void *argument;
        } call;
    };
} command;

typedef struct cpu_stream {
    vd_stream base;
    vd_ring queue;
    vd_thread thread;
    vd_cpu_library *library;
    vd_cpu_worker *worker; /* made by the worker thread at its first program */
    _Atomic uint32_t *abandoned;
    uint32_t drains;          /* asked for, by the host thread */
    _Atomic uint32_t drained; /* passed, by the worker */
} cpu_stream;

#if defined(__SANITIZE_THREAD__)
/* oneDNN guards what it makes once by atomics that nobody sees, but its calls to new and to locks would be
 * seen. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void) {
    return "called_from_lib:libdnnl.so\n";
}
#endif

/* Library code is not instrumented: says what the operation is about to touch. */
static void announce(const vd_program *p, const vd_op *op, void *const *at) {
    vd_operand operands[VD_MAX_OPERANDS];
    int count = vd_op_operands(op, operands);
    for (int i = 0; i < count; i++) {
        const vd_value_info *v = &p->values[operands[i].value];
        size_t bytes = (size_t)vd_shape_count(v->shape) * vd_dtype_bytes(v->dtype);
        vd_tsan_announce(at[operands[i].value], bytes, operands[i].writes);
    }
}

static bool is_abandoned(const cpu_stream *s) {
    return atomic_load_explicit(s->abandoned, memory_order_acquire) != 0;
}

static vd_code run_operations(cpu_stream *s, const vd_exec *x, vd_error *err) {
    if (!s->worker)
        VD_TRY(vd_cpu_worker_open(s->library, &s->worker, err));
    vd_cpu_call call = {x->at, x->scratch, s->worker};
    const vd_program *p = x->program;
    for (int i = 0; i < p->op_count && !is_abandoned(s); i++) {
        announce(p, &p->ops[i], x->at);
        if (vd_cpu_ops[p->ops[i].kind]->run(p, &p->ops[i], x->plans[i], &call, err) != VD_OK)
            return vd_fail_in(err, "%s, program %s, operation %d (%s)", s->base.device->name, p->name, i,
                              vd_op_name(p->ops[i].kind));
        atomic_fetch_add_explicit(&s->base.device->operations, 1, memory_order_relaxed);
    }
    return VD_OK;
}

static void run_program(cpu_stream *s, const command *c) {
    vd_error error;
    if (!vd_fault_failed(c->fault) && run_operations(s, c->exec, &error) != VD_OK)
        vd_fault_raise(c->fault, &error);
}

/* What hands over the `count`-th completion. */
static void *pass(vd_event *e, uint32_t count) {
    return &((vd_cpu_event *)e)->passes[count % VD_CPU_PASSES];
}

static void complete_event(vd_event *e) {
    atomic_store_explicit(&e->seconds, vd_now(), memory_order_release);
    vd_tsan_hand_over(pass(e, atomic_load_explicit(&e->completed, memory_order_relaxed) + 1));
    atomic_fetch_add_explicit(&e->completed, 1, memory_order_release);
    vd_wake_all(&e->completed);
}

static bool has_completed(const cpu_stream *s, vd_event *e, uint32_t target) {
    uint32_t seen = atomic_load_explicit(&e->completed, memory_order_acquire);
    if ((int32_t)(seen - target) >= 0 || is_abandoned(s))
        return true;
    vd_park(&e->completed, seen, ABANDON_POLL_NS);
    return false;
}

static void await_event(const cpu_stream *s, vd_event *e, uint32_t target) {
    vd_tsan_blind();
    while (!has_completed(s, e, target)) {
    }
    vd_tsan_see();
    vd_tsan_take(pass(e, target));
}

static void run_command(cpu_stream *s, const command *c) {
    switch (c->kind) {
    case RUN_PROGRAM:
        run_program(s, c);
        break;
    case COPY_BYTES:
        if (!vd_fault_failed(c->fault))
            memcpy(c->copy.to, c->copy.from, c->copy.bytes);
        break;
    case RECORD_EVENT:
        complete_event(c->record);
        break;
    case AWAIT_EVENT:
        await_event(s, c->await.event, c->await.target);
        break;
    case CALL_HOST:
        c->call.function(c->call.argument);
        break;
    }
}

/* Where the command of a running index lies. */
static void *slot(const cpu_stream *s, uint32_t index) {
    return s->queue.items + index % QUEUE_LENGTH * sizeof(command);
}

static bool push_command(cpu_stream *s, const command *c) {
    vd_tsan_hand_over(slot(s, atomic_load_explicit(&s->queue.tail, memory_order_relaxed)));
    vd_tsan_blind();
    bool pushed = vd_ring_push(&s->queue, c);
    vd_tsan_see();
    return pushed;
}

static bool pop_command(cpu_stream *s, command *c) {
    vd_tsan_blind();
    bool popped = vd_ring_pop(&s->queue, c);
    vd_tsan_see();
    vd_tsan_take(slot(s, atomic_load_explicit(&s->queue.head, memory_order_relaxed) - 1));
    return popped;
}

static void *work(void *argument) {
    cpu_stream *s = argument;
    command c;
    while (pop_command(s, &c))
        if (!is_abandoned(s))
            run_command(s, &c);
    vd_cpu_worker_close(s->worker);
    return NULL;
}

vd_code vd_cpu_stream_open(vd_device *d, vd_cpu_library *library, const char *name, int cpu,
                           _Atomic uint32_t *abandoned, vd_stream **out, vd_error *err) {
    cpu_stream *s = aligned_alloc(_Alignof(cpu_stream), sizeof *s);
    if (!s)
        return vd_fail_memory(err, "a stream", sizeof *s);
    memset(s, 0, sizeof *s);
    s->base.device = d;
    s->library = library;
    s->abandoned = abandoned;
    vd_code code = vd_ring_init(&s->queue, QUEUE_LENGTH, sizeof(command), 0, err);
    if (code == VD_OK)
        code = vd_thread_start(&s->thread, name, cpu, work, s, err);
    if (code != VD_OK) {
        vd_ring_destroy(&s->queue);
        free(s);
        return code;
    }
    *out = &s->base;
    return VD_OK;
}

void vd_cpu_stream_close(vd_stream *stream) {
    if (!stream)
        return;
    cpu_stream *s = (cpu_stream *)stream;
    vd_ring_close(&s->queue);
    vd_thread_join(&s->thread);
    vd_ring_destroy(&s->queue);
    free(s);
}

static vd_code enqueue(vd_stream *stream, const command *c, vd_error *err) {
    cpu_stream *s = (cpu_stream *)stream;
    if (is_abandoned(s))
        return vd_fail(err, VD_ERR_TRY_AGAIN, "device %s was given up", stream->device->name);
    if (!push_command(s, c))
        return vd_fail(err, VD_ERR_INTERNAL, "device %s: its stream is closed", stream->device->name);
    return VD_OK;
}

static void count_drained(void *argument) {
    cpu_stream *s = argument;
    atomic_fetch_add_explicit(&s->drained, 1, memory_order_release);
    vd_wake_all(&s->drained);
}

vd_code vd_cpu_stream_drain(vd_stream *stream, vd_error *err) {
    cpu_stream *s = (cpu_stream *)stream;
    VD_TRY(vd_cpu_stream_notify(stream, count_drained, s, err));
    uint32_t target = ++s->drains;
    for (;;) {
        uint32_t seen = atomic_load_explicit(&s->drained, memory_order_acquire);
        if (seen == target)
            return VD_OK;
        if (is_abandoned(s))
            return vd_fail(err, VD_ERR_TRY_AGAIN, "device %s was given up", stream->device->name);
        vd_park(&s->drained, seen, ABANDON_POLL_NS);
    }
}

vd_code vd_cpu_stream_record(vd_stream *s, vd_event *e, vd_error *err) {
    atomic_fetch_add_explicit(&e->recorded, 1, memory_order_release);
    return enqueue(s, &(command){.kind = RECORD_EVENT, .record = e}, err);
}

vd_code vd_cpu_stream_wait(vd_stream *s, vd_event *e, vd_error *err) {
    uint32_t target = atomic_load_explicit(&e->recorded, memory_order_acquire);
    return enqueue(s, &(command){.kind = AWAIT_EVENT, .await = {e, target}}, err);
}

vd_code vd_cpu_stream_copy(vd_stream *s, vd_copy_kind kind, void *to, const void *from, size_t bytes,
                           vd_fault *fault, vd_error *err) {
    (void)kind; /* one address space */
    return enqueue(s, &(command){.kind = COPY_BYTES, .fault = fault, .copy = {to, from, bytes}}, err);
}

vd_code vd_cpu_stream_copy_peer(vd_stream *s, vd_device *to_device, void *to, const void *from, size_t bytes,
                                vd_fault *fault, vd_error *err) {
    (void)to_device;
    return vd_cpu_stream_copy(s, VD_ON_DEVICE, to, from, bytes, fault, err);
}

vd_code vd_cpu_stream_notify(vd_stream *s, void (*call)(void *argument), void *argument, vd_error *err) {
    return enqueue(s, &(command){.kind = CALL_HOST, .call = {call, argument}}, err);
}

vd_code vd_cpu_stream_launch(vd_stream *s, vd_exec *x, vd_fault *fault, vd_error *err) {
    return enqueue(s, &(command){.kind = RUN_PROGRAM, .fault = fault, .exec = x}, err);
}
