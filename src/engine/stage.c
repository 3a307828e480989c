#include "engine/stage.h"

#include "base/layout.h"
#include "engine/dump.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Device calls through the stage's device. */
#define CALL(s, name, ...) ((s)->device->table->name(__VA_ARGS__))

/* ---- planning and memory ---- */

static void note_roles(vd_stage *s, const vd_task *task) {
    vd_run *run = s->run;
    if (task->kind == VD_TASK_ENCODE)
        s->uses[VD_ROLE_CLIP] = s->uses[VD_ROLE_VAE_ENCODER] = true;
    if (task->kind == VD_TASK_STEPS)
        s->uses[VD_ROLE_CONDITION] = s->uses[VD_ROLE_STEP] = true;
    if (task->kind == VD_TASK_DECODE) {
        s->uses[VD_ROLE_DECODER] = true;
        s->uses[VD_ROLE_DECODER_REST] = run->programs[VD_ROLE_DECODER_REST] != NULL;
    }
    s->admits |= task->kind == VD_TASK_ENCODE || (task->first == 0 && !run->plan->decode);
}

static int incoming_links(const vd_run *run, int index) {
    bool from[VD_STAGE_SLOTS] = {false};
    int count = 0;
    for (int h = 0; h < run->plan->handoff_count; h++) {
        const vd_handoff *hand = &run->plan->handoffs[h];
        if (hand->to == index && !from[hand->from]) {
            from[hand->from] = true;
            count++;
        }
    }
    return count;
}

vd_code vd_stage_plan(vd_run *run, int index, vd_stage **out, vd_error *err) {
    vd_stage *s = aligned_alloc(_Alignof(vd_stage), sizeof *s);
    if (!s)
        return vd_fail_memory(err, "a stage", sizeof *s);
    memset(s, 0, sizeof *s);
    *out = s;
    s->run = run;
    s->index = index;
    atomic_store(&s->activity.sample, -1);
    const vd_plan *plan = run->plan;
    for (int i = plan->order_start[index]; i < plan->order_start[index + 1]; i++)
        note_roles(s, &plan->tasks[plan->order[i]]);
    size_t blocks = 1 + VD_STAGE_OUTBOXES + (size_t)incoming_links(run, index) * VD_LINK_SLOTS;
    for (int r = 0; r < VD_ROLE_COUNT; r++) {
        if (!s->uses[r])
            continue;
        size_t arena = vd_compiled_arena(run->compiled[r]);
        s->arena_bytes = arena > s->arena_bytes ? arena : s->arena_bytes;
        VD_TRY(vd_board_add(&s->board, run->programs[r], err));
    }
    s->planned_bytes = s->arena_bytes + s->board.bytes + blocks * run->state.total + 2 * VD_ALIGNMENT;
    return VD_OK;
}

/* A checksum program over one state block, its result in s->sum. */
static vd_code open_sum(vd_stage *s, void *block, vd_exec **out, vd_error *err) {
    const vd_program *p = s->run->checksum;
    vd_binding bindings[] = {{vd_program_find(p, "block"), block}, {vd_program_find(p, "sum"), s->sum}};
    return CALL(s, exec_open, s->device, s->run->compiled_checksum, s->arena, bindings, 2, out, err);
}

static vd_link *link_of(const vd_stage *s, int from, int to) {
    return s->run->links[from * s->run->plan->devices + to];
}

vd_code vd_stage_connect(vd_stage *s, vd_error *err) {
    for (int from = 0; from < s->run->plan->devices; from++) {
        const vd_link *link = link_of(s, from, s->index);
        for (int slot = 0; link && slot < VD_LINK_SLOTS; slot++)
            VD_TRY(open_sum(s, link->slots[slot], &s->slot_sums[from * VD_LINK_SLOTS + slot], err));
    }
    return VD_OK;
}

static vd_code open_outboxes(vd_stage *s, vd_error *err) {
    for (int i = 0; i < VD_STAGE_OUTBOXES; i++) {
        void *memory;
        VD_TRY(CALL(s, allocate, s->device, s->run->state.total, &memory, err));
        s->outboxes[i].block = memory;
        VD_TRY(CALL(s, event_open, s->device, &s->outboxes[i].filled, err));
        VD_TRY(CALL(s, event_open, s->device, &s->outboxes[i].sent, err));
        VD_TRY(open_sum(s, memory, &s->outbox_sums[i], err));
    }
    return VD_OK;
}

static vd_code open_streams(vd_stage *s, vd_error *err) {
    char name[16];
    snprintf(name, sizeof name, "vd-run%d", s->index);
    VD_TRY(CALL(s, stream_open, s->device, name, &s->compute, err));
    snprintf(name, sizeof name, "vd-copy%d", s->index);
    return CALL(s, stream_open, s->device, name, &s->copy, err);
}

vd_code vd_stage_open(vd_stage *s, vd_device *device, vd_error *err) {
    void *memory;
    s->device = device;
    VD_TRY(vd_ring_init(&s->done, 2 * VD_UNPUBLISHED_LIMIT, sizeof(vd_trip *), 0, err));
    VD_TRY(open_streams(s, err));
    VD_TRY(CALL(s, allocate, device, s->arena_bytes + VD_ALIGNMENT, &s->arena, err));
    VD_TRY(CALL(s, allocate, device, VD_ALIGNMENT, &memory, err));
    s->sum = memory;
    VD_TRY(vd_board_open(&s->board, device, &s->run->state, err));
    VD_TRY(open_outboxes(s, err));
    for (int i = 0; i < VD_STAGE_DEPTH && s->admits; i++)
        VD_TRY(vd_staging_open(s->run, &s->staging[i], err));
    s->slot_sums = calloc((size_t)s->run->plan->devices * VD_LINK_SLOTS, sizeof *s->slot_sums);
    return s->slot_sums ? VD_OK : vd_fail_memory(err, "a stage", VD_STAGE_SLOTS);
}

static void close_execs(vd_stage *s) {
    for (int r = 0; r < VD_ROLE_COUNT; r++)
        CALL(s, exec_close, s->device, s->execs[r]);
    for (int i = 0; i < VD_STAGE_OUTBOXES; i++)
        CALL(s, exec_close, s->device, s->outbox_sums[i]);
    for (int i = 0; s->slot_sums && i < s->run->plan->devices * VD_LINK_SLOTS; i++)
        CALL(s, exec_close, s->device, s->slot_sums[i]);
}

static void close_outbox(vd_stage *s, vd_outbox *o) {
    if (o->block)
        CALL(s, release, s->device, o->block);
    if (o->filled)
        CALL(s, event_close, o->filled);
    if (o->sent)
        CALL(s, event_close, o->sent);
}

void vd_stage_close(vd_stage *s) {
    if (!s)
        return;
    vd_redo_close(s->redo);
    if (s->device) {
        close_execs(s);
        for (int i = 0; i < VD_STAGE_OUTBOXES; i++)
            close_outbox(s, &s->outboxes[i]);
        vd_board_close(&s->board);
        if (s->arena)
            CALL(s, release, s->device, s->arena);
        if (s->sum)
            CALL(s, release, s->device, s->sum);
    }
    for (int i = 0; i < VD_STAGE_DEPTH; i++)
        vd_staging_close(&s->staging[i]);
    vd_image_cache_close(&s->cache);
    vd_ring_destroy(&s->done);
    free(s->slot_sums);
    free(s);
}

/* ---- what the streams tell the host ---- */

static void task_began(void *argument) {
    vd_task_clock *clock = argument;
    vd_stage *s = clock->stage;
    const vd_task *task = &s->run->plan->tasks[clock->task];
    clock->start = vd_now();
    atomic_store(&s->activity.kind, task->kind);
    atomic_store(&s->activity.step, task->first);
    atomic_store(&s->activity.last, task->last);
    atomic_store(&s->activity.sample, task->sample);
    vd_trip *trip = &s->run->trips[task->sample];
    if (task->kind == VD_TASK_STEPS && task->first == 0)
        atomic_store(&trip->first_step, clock->start);
}

static void step_done(void *argument) {
    vd_stage *s = argument;
    atomic_fetch_add(&s->activity.step, 1);
    atomic_fetch_add_explicit(&s->run->steps_done, 1, memory_order_relaxed); /* a figure; orders nothing */
    vd_run_pulse(s->run);
}

static void task_ended(void *argument) {
    vd_task_clock *clock = argument;
    vd_stage *s = clock->stage;
    clock->end = vd_now();
    atomic_store(&s->activity.sample, -1);
    atomic_fetch_add_explicit(&s->finished, 1, memory_order_release);
    vd_wake_all(&s->finished);
    vd_run_pulse(s->run);
}

/* The sample's results lie on the host. The ring has room for every sample that may be unpublished. */
static void sample_done(void *argument) {
    vd_task_clock *clock = argument;
    vd_stage *s = clock->stage;
    vd_trip *trip = &s->run->trips[s->run->plan->tasks[clock->task].sample];
    vd_ring_try_push(&s->done, &trip);
    vd_run_pulse(s->run);
}

/* ---- enqueuing ---- */

static bool run_is_broken(const vd_stage *s) {
    return vd_fault_failed(&s->run->broken);
}

static vd_code closed(const vd_stage *s, vd_error *err) {
    return vd_fail(err, VD_ERR_TRY_AGAIN, "device %s: the run was ended", s->device->name);
}

/* Parks until `counter` is within `limit` of `target`, the run broke, or the device did, which then tells the
 * host nothing any more. */
static vd_code throttle(vd_stage *s, _Atomic uint32_t *counter, int target, int limit, vd_error *err) {
    for (;;) {
        uint32_t seen = atomic_load_explicit(counter, memory_order_acquire);
        if (target - (int)seen < limit)
            return VD_OK;
        if (run_is_broken(s))
            return closed(s, err);
        if (s->device->table->check)
            VD_TRY(CALL(s, check, s->device, err));
        vd_park(counter, seen, 50 * 1000 * 1000);
    }
}

/* Weights are read at the first use, so that the first steps run while the decoder is still being
 * loaded. */
static vd_code ensure_loaded(vd_stage *s, vd_role role, vd_error *err) {
    if (s->loaded[role])
        return VD_OK;
    VD_TRY(CALL(s, load, s->device, s->run->compiled[role], err));
    VD_TRY(vd_board_exec(&s->board, s->run->compiled[role], s->arena, &s->execs[role], err));
    s->loaded[role] = true;
    return VD_OK;
}

/* Nothing is loaded for a sample that has failed or, after a stop, never begins. */
static vd_code launch(vd_stage *s, vd_role role, vd_trip *trip, vd_error *err) {
    if (vd_fault_failed(&trip->fault))
        return VD_OK;
    VD_TRY(ensure_loaded(s, role, err));
    return CALL(s, launch, s->compute, s->execs[role], &trip->fault, err);
}

static vd_code copy(vd_stage *s, vd_copy_kind kind, void *to, const void *from, size_t bytes, vd_trip *trip,
                    vd_error *err) {
    return CALL(s, copy, s->compute, kind, to, from, bytes, &trip->fault, err);
}

/* Copies the checksum of a state block to `to` on the host. */
static vd_code sum_block(vd_stage *s, vd_exec *exec, uint64_t *to, vd_trip *trip, vd_error *err) {
    VD_TRY(CALL(s, launch, s->compute, exec, &trip->fault, err));
    return copy(s, VD_TO_HOST, to, s->sum, sizeof *to, trip, err);
}

static vd_hop *hop_of(vd_trip *trip, int handoff) {
    int i = 0;
    while (i < trip->hop_count - 1 && trip->hops[i].handoff != handoff)
        i++;
    return &trip->hops[i];
}

static vd_code receive(vd_stage *s, const vd_task *task, vd_trip *trip, vd_error *err) {
    const vd_handoff *hand = &s->run->plan->handoffs[task->handoff_in];
    vd_link *link = link_of(s, hand->from, hand->to);
    vd_ticket ticket;
    if (!vd_ring_pop(&link->tickets, &ticket))
        return closed(s, err);
    if (ticket.sample != task->sample)
        return vd_fail(err, VD_ERR_INTERNAL, "device %s expected sample %d from %s and got %d",
                       s->device->name, task->sample, link->from->name, ticket.sample);
    vd_exec *sum = s->slot_sums[hand->from * VD_LINK_SLOTS + ticket.slot];
    VD_TRY(CALL(s, wait, s->compute, link->copied[ticket.slot], err));
    VD_TRY(sum_block(s, sum, &hop_of(trip, task->handoff_in)->received, trip, err));
    VD_TRY(copy(s, VD_ON_DEVICE, s->board.state, link->slots[ticket.slot], s->run->state.total, trip, err));
    VD_TRY(CALL(s, record, s->compute, link->freed[ticket.slot], err));
    return vd_ring_push(&link->free_slots, &ticket.slot) ? VD_OK : closed(s, err);
}

static vd_code send(vd_stage *s, const vd_task *task, vd_trip *trip, vd_error *err) {
    const vd_handoff *hand = &s->run->plan->handoffs[task->handoff_out];
    vd_link *link = link_of(s, hand->from, hand->to);
    int box = s->sent_count++ % VD_STAGE_OUTBOXES;
    vd_outbox *out = &s->outboxes[box];
    VD_TRY(CALL(s, wait, s->compute, out->sent, err));
    VD_TRY(copy(s, VD_ON_DEVICE, out->block, s->board.state, s->run->state.total, trip, err));
    VD_TRY(sum_block(s, s->outbox_sums[box], &hop_of(trip, task->handoff_out)->sent, trip, err));
    VD_TRY(CALL(s, record, s->compute, out->filled, err));
    vd_ticket ticket = {.sample = task->sample};
    if (!vd_ring_pop(&link->free_slots, &ticket.slot))
        return closed(s, err);
    VD_TRY(CALL(s, wait, s->copy, out->filled, err));
    VD_TRY(CALL(s, wait, s->copy, link->freed[ticket.slot], err));
    VD_TRY(CALL(s, copy_peer, s->copy, link->to, link->slots[ticket.slot], out->block, s->run->state.total,
                &trip->fault, err));
    VD_TRY(CALL(s, record, s->copy, out->sent, err));
    VD_TRY(CALL(s, record, s->copy, link->copied[ticket.slot], err));
    return vd_ring_push(&link->tickets, &ticket) ? VD_OK : closed(s, err);
}

/* The first task of a sample: everything the host computes goes to the device. Failures are the
 * sample's. */
static vd_code admit(vd_stage *s, vd_trip *trip, vd_error *err) {
    vd_run *run = s->run;
    vd_staging *staging = &s->staging[s->admitted_count++ % VD_STAGE_DEPTH];
    vd_error error = {0};
    if (atomic_load(run->stop))
        vd_fail(&error, VD_ERR_TRY_AGAIN, "not begun: the run was interrupted");
    else if (run->dump_folder && vd_dump_open(run, &trip->dump, &error) != VD_OK)
        vd_fail_in(&error, "sample %d", trip->index);
    else
        vd_admit(run, trip, &s->cache, staging, &error);
    if (error.code != VD_OK)
        vd_fault_raise(&trip->fault, &error);
    VD_TRY(copy(s, VD_TO_DEVICE, s->board.state, staging->state, run->state.total, trip, err));
    if (run->shape.latents_only)
        return VD_OK;
    size_t pixels = 3 * sizeof(float) * (size_t)run->shape.width * (size_t)run->shape.height;
    size_t clip = vd_staging_bytes(run) - run->state.total - pixels;
    VD_TRY(copy(s, VD_TO_DEVICE, vd_board_find(&s->board, "clip_pixels"), staging->clip_pixels, clip, trip,
                err));
    return copy(s, VD_TO_DEVICE, vd_board_find(&s->board, "vae_pixels"), staging->vae_pixels, pixels, trip,
                err);
}

static vd_code dump_field(vd_stage *s, vd_trip *trip, vd_field field, float *to, vd_error *err) {
    return copy(s, VD_TO_HOST, to, vd_state_at(&s->run->state, s->board.state, field),
                s->run->state.bytes[field], trip, err);
}

static vd_code encode(vd_stage *s, vd_trip *trip, vd_error *err) {
    VD_TRY(launch(s, VD_ROLE_CLIP, trip, err));
    return launch(s, VD_ROLE_VAE_ENCODER, trip, err);
}

/* An external of the step program that is no field of the state. */
static vd_code dump_value(vd_stage *s, vd_trip *trip, const char *name, void *to, vd_error *err) {
    const vd_program *p = s->run->programs[VD_ROLE_STEP];
    const vd_value_info *v = &p->values[vd_program_find(p, name)];
    size_t bytes = (size_t)vd_shape_count(v->shape) * vd_dtype_bytes(v->dtype);
    return copy(s, VD_TO_HOST, to, vd_board_find(&s->board, name), bytes, trip, err);
}

/* Before the step, which leaves the next one's there. */
static vd_code dump_input(vd_stage *s, vd_trip *trip, int step, vd_error *err) {
    int io = vd_dump_io_slot(s->run, step);
    return io < 0 ? VD_OK : dump_value(s, trip, "unet_in", trip->dump->unet_in[io], err);
}

static vd_code dump_output(vd_stage *s, vd_trip *trip, int step, vd_error *err) {
    int io = vd_dump_io_slot(s->run, step);
    VD_TRY(dump_field(s, trip, VD_FIELD_LATENTS, trip->dump->latents[step], err));
    return io < 0 ? VD_OK : dump_value(s, trip, "unet_out", trip->dump->unet_out[io], err);
}

static vd_code run_steps(vd_stage *s, const vd_task *task, vd_trip *trip, vd_error *err) {
    VD_TRY(launch(s, VD_ROLE_CONDITION, trip, err));
    if (trip->dump && task->first == 0) {
        VD_TRY(dump_field(s, trip, VD_FIELD_EMBEDS, trip->dump->embeds, err));
        VD_TRY(dump_field(s, trip, VD_FIELD_IMAGE, trip->dump->image, err));
    }
    for (int step = task->first; step <= task->last; step++) {
        if (trip->dump)
            VD_TRY(dump_input(s, trip, step, err));
        VD_TRY(launch(s, VD_ROLE_STEP, trip, err));
        if (trip->dump)
            VD_TRY(dump_output(s, trip, step, err));
        VD_TRY(CALL(s, notify, s->compute, step_done, s, err));
    }
    return VD_OK;
}

/* Nothing is loaded for a sample that has failed. */
static vd_code decode(vd_stage *s, vd_trip *trip, vd_error *err) {
    const vd_run_shape *shape = &s->run->shape;
    size_t bytes = 3 * (size_t)shape->video.frames * (size_t)shape->width * (size_t)shape->height;
    if (vd_fault_failed(&trip->fault))
        return VD_OK;
    VD_TRY(ensure_loaded(s, VD_ROLE_DECODER, err));
    if (s->uses[VD_ROLE_DECODER_REST])
        VD_TRY(ensure_loaded(s, VD_ROLE_DECODER_REST, err));
    if (!(trip->frames = malloc(bytes)))
        return vd_fail_memory(err, "decoded frames", bytes);
    vd_decoding d = {.stream = s->compute,
                     .board = &s->board,
                     .decoders = &s->execs[VD_ROLE_DECODER],
                     .latents = vd_state_at(&s->run->state, s->board.state, VD_FIELD_LATENTS),
                     .kind = VD_ON_DEVICE};
    return vd_decode(s->run, &d, trip, err);
}

/* After a sample's last task its latents go to the host and the publisher hears of it. */
static vd_code complete(vd_stage *s, vd_task_clock *clock, vd_trip *trip, vd_error *err) {
    size_t bytes = s->run->state.bytes[VD_FIELD_LATENTS];
    if (!(trip->latents = malloc(bytes)))
        return vd_fail_memory(err, "final latents", bytes);
    VD_TRY(dump_field(s, trip, VD_FIELD_LATENTS, trip->latents, err));
    s->completed++;
    return CALL(s, notify, s->compute, sample_done, clock, err);
}

static bool is_last_task(const vd_run *run, const vd_task *task) {
    return task->kind == VD_TASK_DECODE || (!run->plan->decode && task->last == run->plan->steps - 1);
}

static bool is_first_task(const vd_run *run, const vd_task *task) {
    return task->kind == VD_TASK_ENCODE || (!run->plan->decode && task->first == 0);
}

static vd_code run_task(vd_stage *s, int index, vd_error *err) {
    vd_run *run = s->run;
    const vd_task *task = &run->plan->tasks[index];
    vd_trip *trip = &run->trips[task->sample];
    vd_task_clock *clock = &run->clocks[index];
    *clock = (vd_task_clock){.stage = s, .task = index};
    bool last = is_last_task(run, task);
    VD_TRY(throttle(s, &s->finished, s->enqueued++, VD_STAGE_DEPTH, err));
    if (last)
        VD_TRY(throttle(s, &s->published, s->completed, VD_UNPUBLISHED_LIMIT, err));
    if (is_first_task(run, task)) {
        atomic_store(&trip->admitted, vd_now());
        VD_TRY(admit(s, trip, err));
    }
    if (task->handoff_in >= 0)
        VD_TRY(receive(s, task, trip, err));
    VD_TRY(CALL(s, notify, s->compute, task_began, clock, err));
    switch (task->kind) {
    case VD_TASK_ENCODE:
        VD_TRY(encode(s, trip, err));
        break;
    case VD_TASK_STEPS:
        VD_TRY(run_steps(s, task, trip, err));
        break;
    case VD_TASK_DECODE:
        VD_TRY(decode(s, trip, err));
        break;
    }
    if (task->handoff_out >= 0)
        VD_TRY(send(s, task, trip, err));
    VD_TRY(CALL(s, notify, s->compute, task_ended, clock, err));
    return last ? complete(s, clock, trip, err) : VD_OK;
}

static void *stage_main(void *argument) {
    vd_stage *s = argument;
    const vd_plan *plan = s->run->plan;
    vd_error error = {0};
    vd_code code = VD_OK;
    vd_thread_stay_near(s->run->nodes[s->index]);
    for (int i = plan->order_start[s->index]; i < plan->order_start[s->index + 1] && code == VD_OK; i++)
        code = run_task(s, plan->order[i], &error);
    if (code == VD_OK && !run_is_broken(s)) /* what is enqueued must be through before its memory goes */
        code = CALL(s, stream_drain, s->copy, &error);
    if (code == VD_OK && !run_is_broken(s))
        code = CALL(s, stream_drain, s->compute, &error);
    if (code != VD_OK)
        vd_run_break(s->run, &error);
    return NULL;
}

vd_code vd_stage_start(vd_stage *s, vd_error *err) {
    char name[16];
    snprintf(name, sizeof name, "vd-stage%d", s->index);
    return vd_thread_start(&s->thread, name, VD_ANY_CPU, stage_main, s, err);
}

void vd_stage_join(vd_stage *s) {
    vd_thread_join(&s->thread);
    if (s->device) {
        CALL(s, stream_close, s->compute);
        CALL(s, stream_close, s->copy);
        s->compute = s->copy = NULL;
    }
}
