#include "engine/run.h"

#include "base/thread.h"
#include "engine/crew.h"
#include "engine/dump.h"
#include "engine/publisher.h"
#include "engine/stage.h"

#include <stdio.h>
#include <stdlib.h>

enum { WATCH_NS = 100 * 1000 * 1000 };

void vd_run_pulse(vd_run *run) {
    atomic_fetch_add_explicit(&run->pulse, 1, memory_order_release);
    vd_wake_all(&run->pulse);
}

void vd_run_break(vd_run *run, const vd_error *error) {
    vd_error told = *error;
    if (told.code == VD_ERR_TRY_AGAIN)
        vd_fail(&told, told.code, "%s; finished outputs are kept, run again for the rest", error->message);
    vd_fault_raise(&run->broken, &told);
    int devices = run->plan->devices;
    for (int i = 0; run->links && i < devices * devices; i++)
        if (run->links[i])
            vd_link_shut(run->links[i]);
    vd_run_pulse(run);
}

/* ---- programs ---- */

static vd_code build_checksum(vd_run *run, vd_error *err) {
    vd_program *p = run->checksum = vd_program_new("checksum", VD_F32);
    if (!p)
        return vd_fail_memory(err, "a program", sizeof *p);
    vd_value block =
        vd_program_external(p, "block", VD_F32, vd_vector_shape((int64_t)(run->state.total / sizeof(float))));
    vd_value sum = vd_program_external(p, "sum", VD_U64, vd_vector_shape(1));
    vd_program_checksum(p, (vd_checksum){block, sum});
    return vd_program_finish(p, err);
}

/* For a chunk, and for the rest where there is one. */
static vd_code build_decoders(vd_model *model, vd_dtype dtype, const vd_run_shape *s, vd_program *out[2],
                              vd_error *err) {
    const vd_video_shape *v = &s->video;
    int rest = v->frames % s->decode_chunk;
    VD_TRY(vd_build_decoder(model, dtype, s->decode_chunk, v->latent_h, v->latent_w, &out[0], err));
    return rest ? vd_build_decoder(model, dtype, rest, v->latent_h, v->latent_w, &out[1], err) : VD_OK;
}

static vd_code build_ends(vd_run *run, vd_model *model, vd_dtype dtype, vd_error *err) {
    const vd_run_shape *s = &run->shape;
    VD_TRY(vd_build_clip(model, dtype, &run->programs[VD_ROLE_CLIP], err));
    /* The encoder's activations exceed fp16: it runs in fp32, as the reference does (svd-spec.md 1.2, step
     * 7). */
    VD_TRY(
        vd_build_vae_encoder(model, VD_F32, s->height, s->width, &run->programs[VD_ROLE_VAE_ENCODER], err));
    VD_TRY(build_decoders(model, dtype, s, &run->programs[VD_ROLE_DECODER], err));
    return dtype == VD_F32 ? VD_OK : build_decoders(model, VD_F32, s, run->fp32_decoders, err);
}

static vd_code build_programs(vd_run *run, const vd_run_request *r, vd_error *err) {
    VD_TRY(vd_build_condition(r->model, r->dtype, run->shape.video, &run->programs[VD_ROLE_CONDITION], err));
    VD_TRY(vd_build_step(r->model, r->dtype, run->shape.video, r->dump_folder != NULL,
                         &run->programs[VD_ROLE_STEP], err));
    if (!run->shape.latents_only)
        VD_TRY(build_ends(run, r->model, r->dtype, err));
    VD_TRY(vd_state_plan(run->programs[VD_ROLE_CONDITION], run->programs[VD_ROLE_STEP], &run->state, err));
    return build_checksum(run, err);
}

static vd_code compile_each(vd_run *run, vd_error *err) {
    vd_device *d = run->devices[0];
    for (int r = 0; r < VD_ROLE_COUNT; r++)
        if (run->programs[r])
            VD_TRY(d->table->compile(d, run->programs[r], &run->compiled[r], err));
    VD_TRY(d->table->compile(d, run->checksum, &run->compiled_checksum, err));
    return d->table->load(d, run->compiled_checksum, err);
}

static vd_code compile_programs(vd_run *run, vd_error *err) {
    vd_crew crew;
    vd_crew_start(&crew, run, VD_CREW_COMPILES);
    vd_code code = compile_each(run, err);
    vd_crew_dismiss(&crew);
    return code;
}

/* ---- the plan ---- */

static double flops(const vd_run *run, vd_role role) {
    return run->programs[role] ? vd_program_flops(run->programs[role]) : 0;
}

/* Work in units of one step, from the operations of the programs. */
static vd_costs estimate_costs(const vd_run *run) {
    double step = flops(run, VD_ROLE_STEP);
    int chunks = run->shape.latents_only ? 0 : run->shape.video.frames / run->shape.decode_chunk;
    return (vd_costs){
        .encode = (flops(run, VD_ROLE_CLIP) + flops(run, VD_ROLE_VAE_ENCODER)) / step,
        .step = 1,
        .decode = (chunks * flops(run, VD_ROLE_DECODER) + flops(run, VD_ROLE_DECODER_REST)) / step,
    };
}

static vd_code make_plan(vd_run *run, const vd_run_request *r, vd_error *err) {
    vd_plan_request request = r->plan;
    request.devices = r->device_count;
    request.samples = r->sample_count;
    request.steps = run->shape.video.steps;
    request.decode = !run->shape.latents_only;
    request.costs = run->costs = estimate_costs(run);
    return vd_plan_make(&request, &run->plan, err);
}

/* Rings are first in, first out: what a device sends to another must be taken in the same order. */
static vd_code check_order(const vd_run *run, vd_error *err) {
    const vd_plan *p = run->plan;
    for (int from = 0; from < p->devices; from++) {
        for (int to = 0; to < p->devices; to++) {
            int a = p->order_start[from], b = p->order_start[to];
            for (;;) {
                while (a < p->order_start[from + 1] &&
                       (p->tasks[p->order[a]].handoff_out < 0 ||
                        p->handoffs[p->tasks[p->order[a]].handoff_out].to != to))
                    a++;
                while (b < p->order_start[to + 1] &&
                       (p->tasks[p->order[b]].handoff_in < 0 ||
                        p->handoffs[p->tasks[p->order[b]].handoff_in].from != from))
                    b++;
                if (a == p->order_start[from + 1] || b == p->order_start[to + 1])
                    break;
                if (p->tasks[p->order[a]].handoff_out != p->tasks[p->order[b]].handoff_in)
                    return vd_fail(err, VD_ERR_INTERNAL,
                                   "the plan passes samples from device %d to %d out of order", from, to);
                a++, b++;
            }
        }
    }
    return VD_OK;
}

/* ---- trips ---- */

static int task_rank(const vd_task *t) {
    return t->kind == VD_TASK_ENCODE ? -1 : t->kind == VD_TASK_DECODE ? 1 << 30 : t->first;
}

/* Hand-offs of the sample in the order travelled. */
static vd_code list_hops(const vd_plan *plan, vd_trip *trip, vd_error *err) {
    trip->hops = calloc((size_t)plan->handoff_count + 1, sizeof *trip->hops);
    if (!trip->hops)
        return vd_fail_memory(err, "a sample's hand-offs", (size_t)plan->handoff_count * sizeof *trip->hops);
    for (int h = 0; h < plan->handoff_count; h++) {
        if (plan->handoffs[h].sample != trip->index)
            continue;
        int at = trip->hop_count++;
        for (; at > 0 && plan->handoffs[trip->hops[at - 1].handoff].after_step > plan->handoffs[h].after_step;
             at--)
            trip->hops[at] = trip->hops[at - 1];
        trip->hops[at].handoff = h;
    }
    return VD_OK;
}

static vd_code open_trips(vd_run *run, const vd_run_request *r, vd_error *err) {
    run->clocks = calloc((size_t)run->plan->task_count, sizeof *run->clocks);
    run->trips = calloc((size_t)r->sample_count, sizeof *run->trips);
    if (!run->clocks || !run->trips)
        return vd_fail_memory(err, "a run's samples", (size_t)r->sample_count * sizeof *run->trips);
    for (int i = 0; i < r->sample_count; i++) {
        run->trips[i].index = i;
        run->trips[i].job = r->samples[i].job;
        run->trips[i].seed = r->samples[i].seed;
        run->trips[i].output = r->samples[i].output;
        VD_TRY(list_hops(run->plan, &run->trips[i], err));
    }
    return VD_OK;
}

/* Devices in the order that the sample visits them, into its result. */
static vd_code list_devices(const vd_run *run, vd_trip *trip, vd_error *err) {
    const vd_plan *plan = run->plan;
    int count = trip->hop_count + 1, *devices = malloc((size_t)count * sizeof *devices);
    if (!devices)
        return vd_fail_memory(err, "a sample's devices", (size_t)count * sizeof *devices);
    int first = -1;
    for (int t = 0; t < plan->task_count; t++)
        if (plan->tasks[t].sample == trip->index &&
            (first < 0 || task_rank(&plan->tasks[t]) < task_rank(&plan->tasks[first])))
            first = t;
    devices[0] = plan->tasks[first].device;
    for (int i = 0; i < trip->hop_count; i++)
        devices[i + 1] = plan->handoffs[trip->hops[i].handoff].to;
    trip->result->devices = devices;
    trip->result->device_count = count;
    return VD_OK;
}

/* ---- opening and closing ---- */

static vd_code plan_stages(vd_run *run, vd_error *err) {
    int devices = run->plan->devices;
    run->stages = calloc((size_t)devices, sizeof *run->stages);
    run->links = calloc((size_t)(devices * devices), sizeof *run->links);
    if (!run->stages || !run->links)
        return vd_fail_memory(err, "a run's stages", (size_t)devices * sizeof *run->stages);
    for (int d = 0; d < devices; d++)
        VD_TRY(vd_stage_plan(run, d, &run->stages[d], err));
    return VD_OK;
}

static vd_code open_parts(vd_run *run, const vd_run_request *r, vd_error *err) {
    VD_TRY(build_programs(run, r, err));
    VD_TRY(compile_programs(run, err));
    VD_TRY(make_plan(run, r, err));
    VD_TRY(check_order(run, err));
    VD_TRY(open_trips(run, r, err));
    return plan_stages(run, err);
}

vd_code vd_run_open(const vd_run_request *r, vd_run **out, vd_error *err) {
    vd_run *run = calloc(1, sizeof *run);
    if (!run)
        return vd_fail_memory(err, "a run", sizeof *run);
    *run = (vd_run){.log = r->log,
                    .model = r->model,
                    .model_name = r->model_name,
                    .dtype_name = vd_dtype_name(r->dtype),
                    .latent_channels = vd_model_config(r->model)->vae.latent_channels,
                    .first_sample = r->first_sample,
                    .shape = r->shape,
                    .devices = r->devices,
                    .nodes = r->nodes,
                    .formats = r->formats,
                    .format_count = r->format_count,
                    .dump_folder = r->dump_folder,
                    .overwrite = r->overwrite,
                    .stop = r->stop,
                    .began = r->began,
                    .last_published = -1};
    vd_code code = open_parts(run, r, err);
    if (code == VD_OK)
        *out = run;
    else
        vd_run_close(run);
    return code;
}

static void close_memory(vd_run *run) {
    int devices = run->plan ? run->plan->devices : 0;
    for (int d = 0; run->stages && d < devices; d++)
        vd_stage_close(run->stages[d]);
    for (int i = 0; run->links && i < devices * devices; i++)
        vd_link_close(run->links[i]);
    free(run->stages);
    free(run->links);
}

void vd_run_close(vd_run *run) {
    if (!run)
        return;
    close_memory(run);
    for (int i = 0; run->trips && i < run->plan->samples; i++)
        vd_trip_release(run, &run->trips[i]);
    vd_device *d = run->devices[0];
    for (int r = 0; r < VD_ROLE_COUNT; r++) {
        d->table->compiled_close(d, run->compiled[r]);
        vd_program_free(run->programs[r]);
    }
    for (int i = 0; i < 2; i++)
        vd_program_free(run->fp32_decoders[i]);
    d->table->compiled_close(d, run->compiled_checksum);
    vd_program_free(run->checksum);
    vd_plan_free(run->plan);
    free(run->clocks);
    free(run->trips);
    free(run);
}

size_t vd_run_host_bytes(const vd_run *run) {
    size_t clip = run->shape.latents_only ? 0
                                          : 3 * (size_t)run->shape.video.frames * (size_t)run->shape.width *
                                                (size_t)run->shape.height;
    size_t sum = 0;
    for (int d = 0; d < run->plan->devices; d++) {
        const vd_stage *s = run->stages[d];
        sum += s->admits ? (VD_STAGE_DEPTH + 1) * vd_staging_bytes(run) : 0;
        sum += s->uses[VD_ROLE_DECODER] ? VD_UNPUBLISHED_LIMIT * clip : 0;
    }
    return sum;
}

/* ---- running ---- */

static vd_code open_memory(vd_run *run, vd_error *err) {
    int devices = run->plan->devices;
    for (int d = 0; d < devices; d++)
        VD_TRY(vd_stage_open(run->stages[d], run->devices[d], err));
    for (int h = 0; h < run->plan->handoff_count; h++) {
        const vd_handoff *hand = &run->plan->handoffs[h];
        vd_link **link = &run->links[hand->from * devices + hand->to];
        if (!*link)
            VD_TRY(
                vd_link_open(run->devices[hand->from], run->devices[hand->to], run->state.total, link, err));
    }
    for (int d = 0; d < devices; d++)
        VD_TRY(vd_stage_connect(run->stages[d], err));
    return VD_OK;
}

/* Names the devices that still have work, for a run that stands still. */
static vd_code stalled(const vd_run *run, double seconds, vd_error *err) {
    vd_text where = {0};
    for (int d = 0; d < run->plan->devices; d++) {
        vd_stage *s = run->stages[d];
        int tasks = run->plan->order_start[d + 1] - run->plan->order_start[d];
        int done = (int)atomic_load(&s->finished), sample = atomic_load(&s->activity.sample);
        if (done == tasks)
            continue;
        vd_text_add(&where, "%s%s %s task %d of %d", where.length ? ", " : "", s->device->name,
                    sample >= 0 ? "is in" : "waits before", done + 1, tasks);
    }
    vd_fail(err, VD_ERR_TRY_AGAIN, "no progress for %.0f s: %s", seconds,
            where.text ? where.text : "the writer does not finish");
    vd_text_free(&where);
    return err->code;
}

static void abandon_devices(vd_run *run) {
    for (int d = 0; d < run->plan->devices; d++)
        run->devices[d]->table->abandon(run->devices[d]);
}

/* Changes whenever something moves: a task, a sample, or an operation of a program that takes long. */
static uint32_t signs_of_life(const vd_run *run) {
    uint32_t sum = atomic_load(&run->pulse);
    for (int d = 0; d < run->plan->devices; d++)
        sum += atomic_load_explicit(&run->devices[d]->operations, memory_order_relaxed);
    return sum;
}

/* Until every sample is published or the run is broken. */
static void watch_run(vd_run *run, const vd_run_watch *watch) {
    double last_change = vd_now();
    uint32_t last_sign = signs_of_life(run);
    while (atomic_load_explicit(&run->published, memory_order_acquire) < run->plan->samples &&
           !vd_fault_failed(&run->broken)) {
        uint32_t seen = atomic_load_explicit(&run->pulse, memory_order_acquire);
        watch->look(watch->user, run);
        uint32_t sign = signs_of_life(run);
        if (sign != last_sign)
            last_change = vd_now();
        last_sign = sign;
        vd_error error;
        double idle = vd_now() - last_change;
        if (watch->stall_timeout_s > 0 && idle > watch->stall_timeout_s) {
            stalled(run, idle, &error);
            vd_run_break(run, &error);
            abandon_devices(run);
        }
        vd_park(&run->pulse, seen, WATCH_NS);
    }
    watch->look(watch->user, run);
}

/* Samples that a broken run never finished. */
static void mark_unfinished(vd_run *run) {
    for (int i = 0; i < run->plan->samples; i++) {
        vdpp_sample_result *r = run->trips[i].result;
        if (r->code != -1)
            continue;
        r->code = VD_ERR_TRY_AGAIN;
        snprintf(r->error, sizeof r->error, "not finished: the run was ended");
    }
}

static void note_times(vd_run *run) {
    for (int i = 0; i < run->plan->samples; i++) {
        vd_trip *t = &run->trips[i];
        double admitted = atomic_load(&t->admitted), first = atomic_load(&t->first_step);
        t->result->admitted_s = admitted ? admitted - run->began : 0;
        t->result->first_step_s = first ? first - run->began : 0;
    }
}

static vd_code start_and_watch(vd_run *run, vd_publisher *publisher, const vd_run_watch *watch,
                               vd_error *err) {
    VD_TRY(vd_publisher_start(publisher, run, err));
    vd_crew crew;
    vd_crew_start(&crew, run, VD_CREW_LOADS);
    vd_code code = VD_OK;
    for (int d = 0; d < run->plan->devices && code == VD_OK; d++)
        code = vd_stage_start(run->stages[d], err);
    if (code == VD_OK)
        watch_run(run, watch);
    vd_crew_dismiss(&crew);
    return code;
}

vd_code vd_run_go(vd_run *run, vdpp_sample_result *results, const vd_run_watch *watch, vd_error *err) {
    for (int i = 0; i < run->plan->samples; i++) {
        run->trips[i].result = &results[i];
        results[i].code = -1;
        VD_TRY(list_devices(run, &run->trips[i], err));
    }
    vd_publisher publisher = {0};
    vd_code code = open_memory(run, err);
    if (code == VD_OK)
        code = start_and_watch(run, &publisher, watch, err);
    if (code != VD_OK)
        vd_run_break(run, err);
    for (int d = 0; d < run->plan->devices; d++)
        vd_stage_join(run->stages[d]);
    vd_publisher_join(&publisher);
    if (vd_fault_failed(&run->broken)) {
        *err = run->broken.error;
        code = err->code;
    }
    mark_unfinished(run);
    note_times(run);
    return code;
}
