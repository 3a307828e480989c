#include "engine/recording.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LANES = 32,
    DEVICES = 16,
    BLOCKS = 1024,
    ACCESSES = 1 << 16,
    LAUNCHES = 1 << 14,
    WAITS = 1 << 12,
    NAMES = 64
};

/* How far each stream has been seen. */
typedef struct seen {
    uint32_t lane[LANES];
} seen;

typedef struct span {
    const unsigned char *first, *end;
} span;

typedef struct access {
    span bytes;
    int lane;
    uint32_t index; /* in its stream */
    bool writes;
    const char *what;
} access;

typedef struct block {
    span bytes;
    int device;
} block;

typedef struct wait_note {
    int device;
    bool matters;
} wait_note;

typedef struct launch_note {
    const char *program;
    const vd_fault *fault;
} launch_note;

struct recording {
    pthread_mutex_t lock; /* held over each call, so that what is written down is what happens */
    int device_count, lane_count;
    seen clocks[LANES];
    int lane_device[LANES];
    bool drained[DEVICES];
    bool begun;            /* something was enqueued */
    char names[NAMES][32]; /* of programs, which do not live as long */
    block blocks[BLOCKS];
    int block_count;
    access accesses[ACCESSES];
    int access_count;
    launch_note launches[LAUNCHES];
    int launch_count;
    int forget_device, forget_k; /* 0: none */
    wait_note waits[WAITS];
    int wait_count;
    vd_text problems;
};

typedef struct recorded_device {
    vd_device base;
    vd_device *inner;
    recording *r;
    int index;
} recorded_device;

typedef struct recorded_stream {
    vd_stream base;
    vd_stream *inner;
    recorded_device *device;
    int lane;
} recorded_stream;

typedef struct recorded_event {
    vd_event base;
    vd_event *inner;
    recorded_device *device;
    bool recorded;
    seen clock; /* of the stream when it was last recorded */
} recorded_event;

/* A bound program, with what it does to memory beside its constants. */
typedef struct recorded_exec {
    vd_exec *inner;
    const char *program;
    access *touches; /* stream and index are still open */
    int touch_count;
} recorded_exec;

static recorded_device *device_of(vd_device *d) {
    return (recorded_device *)d;
}

static recorded_stream *stream_of(vd_stream *s) {
    return (recorded_stream *)s;
}

static recorded_event *event_of(vd_event *e) {
    return (recorded_event *)e;
}

#define INNER(device, name, ...) ((device)->inner->table->name(__VA_ARGS__))

/* ---- rules ---- */

static bool overlap(span a, span b) {
    return a.first < b.end && b.first < a.end;
}

static const block *find_block(const recording *r, span bytes) {
    for (int i = 0; i < r->block_count; i++)
        if (overlap(r->blocks[i].bytes, bytes))
            return &r->blocks[i];
    return NULL;
}

/* How far from its first byte on a span has been written. */
static const unsigned char *written_until(const recording *r, span bytes) {
    const unsigned char *at = bytes.first;
    for (int i = 0; i < r->access_count && at < bytes.end; i++)
        if (r->accesses[i].writes && r->accesses[i].bytes.first <= at && r->accesses[i].bytes.end > at) {
            at = r->accesses[i].bytes.end;
            i = -1;
        }
    return at;
}

static void check_order(recording *r, const access *now) {
    for (int i = 0; i < r->access_count; i++) {
        const access *before = &r->accesses[i];
        if ((before->writes || now->writes) && overlap(before->bytes, now->bytes) &&
            r->clocks[now->lane].lane[before->lane] < before->index)
            vd_text_add(&r->problems, "stream %d: %s %s what stream %d: %s %s, and nothing orders them\n",
                        now->lane, now->what, now->writes ? "writes" : "reads", before->lane, before->what,
                        before->writes ? "writes" : "reads");
    }
}

/* `device`: whose memory it must be, unless it is the host's. */
static void touch(recording *r, access now, int device) {
    const block *home = find_block(r, now.bytes);
    if (!home)
        return;
    if (now.bytes.first < home->bytes.first || now.bytes.end > home->bytes.end)
        vd_text_add(&r->problems, "%s reaches beyond its block\n", now.what);
    if (home->device != device)
        vd_text_add(&r->problems, "%s of device %d reaches into device %d\n", now.what, device, home->device);
    if (!now.writes && written_until(r, now.bytes) < now.bytes.end)
        vd_text_add(&r->problems, "%s reads what nobody wrote\n", now.what);
    check_order(r, &now);
    if (r->access_count == ACCESSES)
        vd_text_add(&r->problems, "more accesses than a recording holds\n");
    else
        r->accesses[r->access_count++] = now;
}

/* The next place in a stream, for something that is enqueued there. */
static uint32_t advance(recording *r, const recorded_stream *s, const char *what) {
    if (r->drained[s->device->index])
        vd_text_add(&r->problems, "%s on %s after the host waited for it\n", what, s->device->base.name);
    r->begun = true;
    return ++r->clocks[s->lane].lane[s->lane];
}

typedef struct transfer {
    const char *what;
    const void *from, *to;
    size_t bytes;
    int from_device, to_device;
} transfer;

static void touch_both(recording *r, const recorded_stream *s, transfer t) {
    const unsigned char *from = t.from, *to = t.to;
    uint32_t index = advance(r, s, t.what);
    touch(r, (access){{from, from + t.bytes}, s->lane, index, false, t.what}, t.from_device);
    touch(r, (access){{to, to + t.bytes}, s->lane, index, true, t.what}, t.to_device);
}

/* ---- memory ---- */

static void mirror_memory(recorded_device *d) {
    atomic_store(&d->base.allocated, atomic_load(&d->inner->allocated));
    atomic_store(&d->base.peak, atomic_load(&d->inner->peak));
}

static void rec_close(vd_device *d) {
    INNER(device_of(d), close, device_of(d)->inner);
    free(d);
}

static void rec_abandon(vd_device *d) {
    INNER(device_of(d), abandon, device_of(d)->inner);
}

static void check_start(recording *r, const char *device, const char *what) {
    if (r->begun)
        vd_text_add(&r->problems, "%s: %s after the start\n", device, what);
}

static vd_code rec_allocate(vd_device *d, size_t bytes, void **memory, vd_error *err) {
    recording *r = device_of(d)->r;
    VD_TRY(INNER(device_of(d), allocate, device_of(d)->inner, bytes, memory, err));
    mirror_memory(device_of(d));
    pthread_mutex_lock(&r->lock);
    const unsigned char *first = *memory;
    check_start(r, d->name, "memory is allocated");
    if (r->block_count < BLOCKS)
        r->blocks[r->block_count++] = (block){{first, first + bytes}, device_of(d)->index};
    pthread_mutex_unlock(&r->lock);
    return VD_OK;
}

static void rec_release(vd_device *d, void *memory) {
    INNER(device_of(d), release, device_of(d)->inner, memory);
    mirror_memory(device_of(d));
}

/* ---- streams and events ---- */

static vd_code rec_stream_open(vd_device *base, const char *name, vd_stream **out, vd_error *err) {
    recorded_device *d = device_of(base);
    recorded_stream *s = calloc(1, sizeof *s);
    if (!s)
        return vd_fail_memory(err, "a recorded stream", sizeof *s);
    vd_code code = INNER(d, stream_open, d->inner, name, &s->inner, err);
    if (code != VD_OK) {
        free(s);
        return code;
    }
    s->base.device = base;
    s->device = d;
    pthread_mutex_lock(&d->r->lock);
    check_start(d->r, base->name, "a stream is opened");
    s->lane = d->r->lane_count++ % LANES;
    pthread_mutex_unlock(&d->r->lock);
    *out = &s->base;
    return VD_OK;
}

static void rec_stream_close(vd_stream *s) {
    if (!s)
        return;
    INNER(stream_of(s)->device, stream_close, stream_of(s)->inner);
    free(s);
}

static vd_code rec_stream_drain(vd_stream *s, vd_error *err) {
    recorded_device *d = stream_of(s)->device;
    pthread_mutex_lock(&d->r->lock);
    d->r->drained[d->index] = true;
    pthread_mutex_unlock(&d->r->lock);
    return INNER(d, stream_drain, stream_of(s)->inner, err);
}

static vd_code rec_event_open(vd_device *base, vd_event **out, vd_error *err) {
    recorded_device *d = device_of(base);
    recorded_event *e = calloc(1, sizeof *e);
    if (!e)
        return vd_fail_memory(err, "a recorded event", sizeof *e);
    vd_code code = INNER(d, event_open, d->inner, &e->inner, err);
    if (code != VD_OK) {
        free(e);
        return code;
    }
    e->base.device = base;
    e->device = d;
    pthread_mutex_lock(&d->r->lock);
    check_start(d->r, base->name, "an event is opened");
    pthread_mutex_unlock(&d->r->lock);
    *out = &e->base;
    return VD_OK;
}

static void rec_event_close(vd_event *e) {
    if (!e)
        return;
    INNER(event_of(e)->device, event_close, event_of(e)->inner);
    free(e);
}

static vd_code rec_record(vd_stream *s, vd_event *e, vd_error *err) {
    recorded_stream *stream = stream_of(s);
    recording *r = stream->device->r;
    pthread_mutex_lock(&r->lock);
    advance(r, stream, "a record");
    event_of(e)->recorded = true;
    event_of(e)->clock = r->clocks[stream->lane];
    vd_code code = INNER(stream->device, record, stream->inner, event_of(e)->inner, err);
    pthread_mutex_unlock(&r->lock);
    return code;
}

/* Takes into the stream's clock what the event's has seen. */
static void catch_up(seen *clock, const seen *event) {
    for (int i = 0; i < LANES; i++)
        if (clock->lane[i] < event->lane[i])
            clock->lane[i] = event->lane[i];
}

static vd_code rec_wait(vd_stream *s, vd_event *e, vd_error *err) {
    recorded_stream *stream = stream_of(s);
    recording *r = stream->device->r;
    pthread_mutex_lock(&r->lock);
    advance(r, stream, "a wait");
    if (r->wait_count < WAITS)
        r->waits[r->wait_count++] = (wait_note){stream->device->index, event_of(e)->recorded};
    if (r->forget_device != stream->device->index || r->forget_k != recording_waits(r, r->forget_device))
        catch_up(&r->clocks[stream->lane], &event_of(e)->clock);
    vd_code code = INNER(stream->device, wait, stream->inner, event_of(e)->inner, err);
    pthread_mutex_unlock(&r->lock);
    return code;
}

/* ---- work ---- */

static vd_code rec_copy(vd_stream *s, vd_copy_kind kind, void *to, const void *from, size_t bytes,
                        vd_fault *fault, vd_error *err) {
    recorded_stream *stream = stream_of(s);
    recording *r = stream->device->r;
    pthread_mutex_lock(&r->lock);
    int own = stream->device->index;
    touch_both(r, stream, (transfer){"a copy", from, to, bytes, own, own});
    vd_code code = INNER(stream->device, copy, stream->inner, kind, to, from, bytes, fault, err);
    pthread_mutex_unlock(&r->lock);
    return code;
}

static vd_code rec_copy_peer(vd_stream *s, vd_device *to_device, void *to, const void *from, size_t bytes,
                             vd_fault *fault, vd_error *err) {
    recorded_stream *stream = stream_of(s);
    recording *r = stream->device->r;
    pthread_mutex_lock(&r->lock);
    touch_both(
        r, stream,
        (transfer){"a peer copy", from, to, bytes, stream->device->index, device_of(to_device)->index});
    vd_code code = INNER(stream->device, copy_peer, stream->inner, device_of(to_device)->inner, to, from,
                         bytes, fault, err);
    pthread_mutex_unlock(&r->lock);
    return code;
}

static vd_code rec_notify(vd_stream *s, void (*call)(void *argument), void *argument, vd_error *err) {
    recorded_stream *stream = stream_of(s);
    recording *r = stream->device->r;
    pthread_mutex_lock(&r->lock);
    advance(r, stream, "a notification");
    vd_code code = INNER(stream->device, notify, stream->inner, call, argument, err);
    pthread_mutex_unlock(&r->lock);
    return code;
}

/* ---- programs ---- */

static vd_code rec_compile(vd_device *d, const vd_program *p, vd_compiled **out, vd_error *err) {
    return INNER(device_of(d), compile, device_of(d)->inner, p, out, err);
}

static void rec_compiled_close(vd_device *d, vd_compiled *c) {
    INNER(device_of(d), compiled_close, device_of(d)->inner, c);
}

static vd_code rec_load(vd_device *d, vd_compiled *c, vd_error *err) {
    return INNER(device_of(d), load, device_of(d)->inner, c, err);
}

static size_t value_bytes(const vd_value_info *v) {
    return (size_t)vd_shape_count(v->shape) * vd_dtype_bytes(v->dtype);
}

static const char *keep_name(recording *r, const char *name) {
    int i = 0;
    pthread_mutex_lock(&r->lock);
    while (i < NAMES - 1 && r->names[i][0] && strcmp(r->names[i], name) != 0)
        i++;
    snprintf(r->names[i], sizeof r->names[i], "%s", name);
    pthread_mutex_unlock(&r->lock);
    return r->names[i];
}

/* Where an external, or a view of one, lies; NULL: neither. */
static const unsigned char *place_of(const vd_program *p, vd_value v, const vd_binding *bindings, int count) {
    bool view = p->values[v].storage == VD_STORAGE_VIEW;
    vd_value root = view ? p->values[v].parent : v;
    for (int i = 0; i < count; i++)
        if (bindings[i].value == root)
            return (const unsigned char *)bindings[i].memory + (view ? p->values[v].offset : 0);
    return NULL;
}

/* The arena as a whole, then every external that an operation names. What a program writes before it reads
 * is its own affair (program_check.c proves the order), so only reads of what it has not written itself
 * count as reads. */
static void note_touches(recorded_exec *x, const vd_compiled *c, const unsigned char *arena,
                         const vd_binding *bindings, int count) {
    const vd_program *p = c->program;
    if (vd_compiled_arena(c))
        x->touches[x->touch_count++] =
            (access){.bytes = {arena, arena + vd_compiled_arena(c)}, .writes = true, .what = x->program};
    for (int i = 0; i < p->op_count; i++) {
        vd_operand operands[VD_MAX_OPERANDS];
        int used = vd_op_operands(&p->ops[i], operands);
        for (int k = 0; k < used; k++) {
            const unsigned char *first = place_of(p, operands[k].value, bindings, count);
            if (!first)
                continue;
            access a = {.bytes = {first, first + value_bytes(&p->values[operands[k].value])},
                        .what = x->program};
            bool own = false;
            for (int t = 0; t < x->touch_count; t++)
                own |= x->touches[t].writes && x->touches[t].bytes.first <= a.bytes.first &&
                       x->touches[t].bytes.end >= a.bytes.end;
            if (operands[k].reads && !own)
                x->touches[x->touch_count++] = a;
            a.writes = true;
            if (operands[k].writes && !own)
                x->touches[x->touch_count++] = a;
        }
    }
}

static vd_code rec_exec_open(vd_device *d, vd_compiled *c, void *arena, const vd_binding *bindings, int count,
                             vd_exec **out, vd_error *err) {
    recorded_exec *x = calloc(1, sizeof *x);
    if (!x || !(x->touches =
                    calloc((size_t)(2 * VD_MAX_OPERANDS * c->program->op_count + 1), sizeof *x->touches))) {
        free(x);
        return vd_fail_memory(err, "a recorded program", sizeof *x);
    }
    vd_code code =
        INNER(device_of(d), exec_open, device_of(d)->inner, c, arena, bindings, count, &x->inner, err);
    if (code != VD_OK) {
        free(x->touches);
        free(x);
        return code;
    }
    x->program = keep_name(device_of(d)->r, c->program->name);
    note_touches(x, c, arena, bindings, count);
    *out = (vd_exec *)x;
    return VD_OK;
}

static void rec_exec_close(vd_device *d, vd_exec *exec) {
    recorded_exec *x = (recorded_exec *)exec;
    if (!x)
        return;
    INNER(device_of(d), exec_close, device_of(d)->inner, x->inner);
    free(x->touches);
    free(x);
}

static vd_code rec_launch(vd_stream *s, vd_exec *exec, vd_fault *fault, vd_error *err) {
    recorded_stream *stream = stream_of(s);
    recording *r = stream->device->r;
    const recorded_exec *x = (const recorded_exec *)exec;
    pthread_mutex_lock(&r->lock);
    uint32_t index = advance(r, stream, x->program);
    for (int i = 0; i < x->touch_count; i++) {
        access a = x->touches[i];
        a.lane = stream->lane;
        a.index = index;
        touch(r, a, stream->device->index);
    }
    if (r->launch_count < LAUNCHES)
        r->launches[r->launch_count++] = (launch_note){x->program, fault};
    vd_code code = INNER(stream->device, launch, stream->inner, x->inner, fault, err);
    pthread_mutex_unlock(&r->lock);
    return code;
}

static const vd_device_table recording_table = {
    .close = rec_close,
    .abandon = rec_abandon,
    .allocate = rec_allocate,
    .release = rec_release,
    .stream_open = rec_stream_open,
    .stream_close = rec_stream_close,
    .stream_drain = rec_stream_drain,
    .event_open = rec_event_open,
    .event_close = rec_event_close,
    .record = rec_record,
    .wait = rec_wait,
    .copy = rec_copy,
    .copy_peer = rec_copy_peer,
    .notify = rec_notify,
    .compile = rec_compile,
    .compiled_close = rec_compiled_close,
    .load = rec_load,
    .exec_open = rec_exec_open,
    .exec_close = rec_exec_close,
    .launch = rec_launch,
};

/* ---- recordings ---- */

recording *recording_new(void) {
    recording *r = calloc(1, sizeof *r);
    if (r)
        pthread_mutex_init(&r->lock, NULL);
    return r;
}

void recording_free(recording *r) {
    pthread_mutex_destroy(&r->lock);
    vd_text_free(&r->problems);
    free(r);
}

vd_code recording_device_open(recording *r, vd_device *inner, vd_device **out, vd_error *err) {
    recorded_device *d = calloc(1, sizeof *d);
    if (!d || r->device_count == DEVICES) {
        free(d);
        return vd_fail_memory(err, "a recorded device", sizeof *d);
    }
    d->base.table = &recording_table;
    snprintf(d->base.name, sizeof d->base.name, "%s", inner->name);
    d->inner = inner;
    d->r = r;
    d->index = r->device_count++;
    *out = &d->base;
    return VD_OK;
}

void recording_forget(recording *r, int device, int k) {
    r->forget_device = device;
    r->forget_k = k;
}

const char *recording_problems(const recording *r) {
    return r->problems.text;
}

static int count_launches(const recording *r, const char *program, const vd_fault *fault, int end) {
    int count = 0;
    for (int i = 0; i < end; i++)
        count += r->launches[i].fault == fault && strcmp(r->launches[i].program, program) == 0;
    return count;
}

bool recording_launched(const recording *r, const char *program, int samples, int times) {
    int seen_samples = 0;
    for (int i = 0; i < r->launch_count; i++) {
        const launch_note *l = &r->launches[i];
        if (strcmp(l->program, program) != 0 || count_launches(r, program, l->fault, i) > 0)
            continue;
        seen_samples++;
        if (count_launches(r, program, l->fault, r->launch_count) != times)
            return false;
    }
    return seen_samples == samples;
}

int recording_waits(const recording *r, int device) {
    int count = 0;
    for (int i = 0; i < r->wait_count; i++)
        count += r->waits[i].device == device;
    return count;
}

bool recording_wait_matters(const recording *r, int device, int k) {
    for (int i = 0; i < r->wait_count; i++)
        if (r->waits[i].device == device && --k == 0)
            return r->waits[i].matters;
    return false;
}

int recording_accesses(const recording *r) {
    return r->access_count;
}
