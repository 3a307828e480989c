/* Implements vdpp.h. */
#include "engine/engine.h"

#include "base/thread.h"
#include "engine/stage.h"
#include "media/writer.h"
#include "model/hub.h"
#include "schedule/print.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(((vdpp_error *)0)->message) == VD_ERROR_CAP, "messages fit");

void vdpp_options_init(vdpp_options *options) {
    *options = (vdpp_options){.size = sizeof *options,
                              .device = "auto",
                              .device_count = -1,
                              .mode = "pipeline",
                              .goal = "makespan",
                              .stall_timeout_s = 600,
                              .log_level = VDPP_LOG_INFO};
}

void vdpp_job_init(vdpp_job *job) {
    *job = (vdpp_job){.size = sizeof *job};
}

static int give(const vd_error *from, vdpp_error *to) {
    to->code = (int)from->code;
    memcpy(to->message, from->message, sizeof to->message);
    return to->code;
}

static void forward_log(void *user, vd_log_level level, const char *line) {
    const vdpp_engine *e = user;
    e->options.log(e->options.user, (int)level, line);
}

/* ---- options ---- */

static vd_code parse_dtype(const char *name, vd_dtype otherwise, vd_dtype *out, vd_error *err) {
    static const vd_dtype known[] = {VD_F32, VD_F16, VD_BF16};
    *out = otherwise;
    if (!name)
        return VD_OK;
    for (int i = 0; i < 3; i++)
        if (strcmp(name, vd_dtype_name(known[i])) == 0) {
            *out = known[i];
            return VD_OK;
        }
    return vd_fail(err, VD_ERR_USAGE, "--dtype %s: must be fp32, fp16 or bf16", name);
}

static vd_code parse_formats(vdpp_engine *e, vd_error *err) {
    const char *text = e->options.formats;
    if (!text)
        text = vd_format_find("mp4") ? "mp4" : "png";
    if (snprintf(e->format_text, sizeof e->format_text, "%s", text) >= (int)sizeof e->format_text)
        return vd_fail(err, VD_ERR_USAGE, "--format %.40s...: too long; there are %s", text,
                       vd_format_list());
    char *rest = NULL;
    for (char *name = strtok_r(e->format_text, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        if (!vd_format_find(name))
            return vd_fail(err, VD_ERR_USAGE, "--format %s: no such format in this build; there are %s", name,
                           vd_format_list());
        if (e->format_count == VD_MAX_FORMATS)
            return vd_fail(err, VD_ERR_USAGE, "--format: more than %d formats", VD_MAX_FORMATS);
        e->formats[e->format_count++] = name;
    }
    return e->format_count ? VD_OK
                           : vd_fail(err, VD_ERR_USAGE, "--format: empty; there are %s", vd_format_list());
}

static vd_code parse_options(vdpp_engine *e, vd_error *err) {
    const vdpp_options *o = &e->options;
    if (o->size != sizeof *o)
        return vd_fail(err, VD_ERR_USAGE, "vdpp_options has %zu bytes, this library expects %zu", o->size,
                       sizeof *o);
    if (!vd_mode_parse(o->mode, &e->plan.mode))
        return vd_fail(err, VD_ERR_USAGE, "--parallel %s: must be pipeline, data, wrap or auto", o->mode);
    if (!vd_goal_parse(o->goal, &e->plan.goal))
        return vd_fail(err, VD_ERR_USAGE, "--goal %s: must be makespan, latency or cadence", o->goal);
    if (o->split && e->plan.mode != VD_MODE_PIPELINE)
        return vd_fail(err, VD_ERR_USAGE, "--split only means something with --parallel pipeline, not %s",
                       o->mode);
    e->plan.split = o->split;
    vd_dtype any;
    VD_TRY(parse_dtype(o->dtype, VD_F32, &any, err));
    return parse_formats(e, err);
}

static vd_code open_devices(vdpp_engine *e, vd_error *err) {
    const vdpp_options *o = &e->options;
    VD_TRY(vd_devices_open(o, &e->log, &e->devices, err));
    if (o->split && o->split_count != e->devices.count)
        return vd_fail(err, VD_ERR_USAGE, "--split has %d entries for %d devices", o->split_count,
                       e->devices.count);
    return parse_dtype(o->dtype, e->devices.backend->default_dtype, &e->dtype, err);
}

static vd_code open_model(vdpp_engine *e, vd_error *err) {
    char folder[4096];
    if (!e->options.model)
        return vd_fail(err, VD_ERR_USAGE, "no model: give one with --model FOLDER or ORG/NAME");
    VD_TRY(vd_hub_resolve(e->options.model, folder, sizeof folder, err));
    VD_TRY(vd_model_open(folder, &e->log, &e->model, err));
    return vd_job_suggestions(folder, &e->suggested, err);
}

int vdpp_open(const vdpp_options *options, vdpp_engine **out, vdpp_error *error) {
    vd_error err = {0};
    vdpp_engine *e = calloc(1, sizeof *e);
    if (!e) {
        vd_fail_memory(&err, "an engine", sizeof *e);
        return give(&err, error);
    }
    e->options = *options;
    e->log = (vd_log){options->log ? forward_log : NULL, e, (vd_log_level)options->log_level};
    vd_code code = parse_options(e, &err);
    if (code == VD_OK)
        code = open_devices(e, &err);
    if (code == VD_OK)
        code = open_model(e, &err);
    if (code == VD_OK) {
        *out = e;
        return 0;
    }
    vdpp_close(e);
    return give(&err, error);
}

void vdpp_close(vdpp_engine *e) {
    if (!e)
        return;
    vd_devices_close(&e->devices);
    vd_model_close(e->model);
    free(e);
}

void vdpp_stop(vdpp_engine *e) {
    atomic_store(&e->stop, 1);
}

int vdpp_job_resolve(const vdpp_engine *e, vdpp_job *job, vdpp_error *error) {
    vd_error err = {0};
    return vd_job_resolve(e, job, &err) == VD_OK ? 0 : give(&err, error);
}

/* ---- runs: neighbouring samples of one shape ---- */

/* The samples of a call with their jobs resolved, each job once. */
typedef struct call {
    vdpp_engine *engine;
    vdpp_sample *samples; /* [count], jobs point into `jobs` */
    vdpp_job *jobs;       /* [count]; only the first use of each is filled */
    int count;
    double began, loaded;
} call;

static void call_close(call *c) {
    free(c->samples);
    free(c->jobs);
}

/* What the planner would refuse, before any job is begun. */
static vd_code check_split(const vdpp_engine *e, const vdpp_job *job, vd_error *err) {
    int sum = 0;
    for (int i = 0; e->plan.split && i < e->options.split_count; i++)
        sum += e->plan.split[i];
    if (!e->plan.split || sum == job->steps)
        return VD_OK;
    return vd_fail(err, VD_ERR_USAGE,
                   "--split adds up to %d steps, but a job has %d; leave --split out or give both", sum,
                   job->steps);
}

static vd_code call_open(call *c, const vdpp_sample *samples, vd_error *err) {
    c->samples = malloc((size_t)c->count * sizeof *c->samples);
    c->jobs = malloc((size_t)c->count * sizeof *c->jobs);
    if (!c->samples || !c->jobs)
        return vd_fail_memory(err, "the list of samples", (size_t)c->count * sizeof *c->samples);
    for (int i = 0; i < c->count; i++) {
        c->samples[i] = samples[i];
        if (i > 0 && samples[i].job == samples[i - 1].job) {
            c->samples[i].job = c->samples[i - 1].job;
            continue;
        }
        c->jobs[i] = *samples[i].job;
        VD_TRY(vd_job_resolve(c->engine, &c->jobs[i], err));
        VD_TRY(check_split(c->engine, &c->jobs[i], err));
        c->samples[i].job = &c->jobs[i];
    }
    return VD_OK;
}

static bool same_shape(const vd_run_shape *a, const vd_run_shape *b) {
    return a->width == b->width && a->height == b->height && a->video.frames == b->video.frames &&
           a->video.steps == b->video.steps && a->video.guided == b->video.guided &&
           a->decode_chunk == b->decode_chunk && a->latents_only == b->latents_only;
}

/* How many samples from `first` on share its shape. */
static int shape_run(const call *c, int first, vd_run_shape *shape) {
    *shape = vd_job_shape(c->engine, c->samples[first].job);
    int count = 1;
    for (; first + count < c->count; count++) {
        vd_run_shape next = vd_job_shape(c->engine, c->samples[first + count].job);
        if (!same_shape(shape, &next))
            break;
    }
    return count;
}

/* Kernels chosen since the last look. */
static void tell_kernels(vdpp_engine *e) {
    const vd_backend *b = e->devices.backend;
    for (int there = b->table->kernel_count(b); e->kernels_told < there; e->kernels_told++)
        vd_log_line(&e->log, VD_LOG_DEBUG, "kernel of %s", b->table->kernel(b, e->kernels_told));
}

static vd_code open_run(const call *c, int first, int count, const vd_run_shape *shape, vd_run **out,
                        vd_error *err) {
    vdpp_engine *e = c->engine;
    vd_run_request request = {.log = &e->log,
                              .model = e->model,
                              .model_name = e->options.model,
                              .dtype = e->dtype,
                              .devices = e->devices.at,
                              .nodes = e->devices.nodes,
                              .device_count = e->devices.count,
                              .plan = e->plan,
                              .shape = *shape,
                              .samples = c->samples + first,
                              .sample_count = count,
                              .first_sample = first,
                              .formats = e->formats,
                              .format_count = e->format_count,
                              .dump_folder = e->options.dump,
                              .overwrite = e->options.overwrite != 0,
                              .stop = &e->stop,
                              .began = c->began};
    VD_TRY(vd_run_open(&request, out, err));
    tell_kernels(e);
    return VD_OK;
}

/* ---- progress ---- */

typedef struct watcher {
    const call *call;
    vdpp_report *report;
    int64_t steps, steps_before; /* of the call; of earlier runs */
    int done_before, failed_before,
        seen; /* samples of earlier runs; published of this run at the last look */
} watcher;

static void read_activity(const vd_run *run, vdpp_device_progress *out) {
    static const char letters[] = {[VD_TASK_ENCODE] = 'e', [VD_TASK_STEPS] = 's', [VD_TASK_DECODE] = 'd'};
    for (int d = 0; d < run->plan->devices; d++) {
        const vd_activity *a = &run->stages[d]->activity;
        int sample = atomic_load(&a->sample);
        out[d] = (vdpp_device_progress){.name = run->devices[d]->name,
                                        .sample = sample < 0 ? -1 : run->first_sample + sample,
                                        .task = sample < 0 ? ' ' : letters[atomic_load(&a->kind)],
                                        .step = atomic_load(&a->step),
                                        .last = atomic_load(&a->last)};
    }
}

static void look(void *user, const vd_run *run) {
    watcher *w = user;
    const vdpp_options *o = &w->call->engine->options;
    if (!o->progress)
        return;
    vdpp_device_progress devices[VD_MAX_DEVICES];
    int published = atomic_load(&run->published);
    read_activity(run, devices);
    vdpp_progress p = {.samples = w->call->count,
                       .finished = w->done_before + published,
                       .failed = w->failed_before + atomic_load(&run->failed),
                       .steps = w->steps,
                       .steps_done = w->steps_before + atomic_load(&run->steps_done),
                       .elapsed_s = vd_now() - w->call->began,
                       .device_count = run->plan->devices,
                       .devices = devices,
                       .finished_sample =
                           published > w->seen ? run->first_sample + atomic_load(&run->last_published) : -1};
    w->seen = published;
    o->progress(o->user, &p);
}

/* ---- calls ---- */

static double first_start(const vd_run *run) {
    double first = 0;
    for (int i = 0; i < run->plan->task_count; i++)
        if (run->clocks[i].start && (first == 0 || run->clocks[i].start < first))
            first = run->clocks[i].start;
    return first;
}

static vd_code run_shape(call *c, int first, int count, const vd_run_shape *shape, vd_account *account,
                         watcher *w, vd_error *err) {
    vd_run *run = NULL;
    VD_TRY(open_run(c, first, count, shape, &run, err));
    vd_memory_plan memory;
    vd_run_watch watch = {look, w, c->engine->options.stall_timeout_s};
    vd_code code = vd_memory_plan_of(c->engine, run, &memory, err);
    if (code == VD_OK)
        code = vd_memory_check(&memory, run, err);
    if (code == VD_OK)
        code = vd_devices_connect(&c->engine->devices, run->plan, err);
    if (code == VD_OK) {
        code = vd_run_go(run, vd_account_report(account)->samples + first, &watch, err);
        if (c->loaded == 0)
            c->loaded = first_start(run);
        vd_error adding;
        if (vd_account_add(account, run, &memory, &adding) != VD_OK && code == VD_OK) {
            *err = adding;
            code = adding.code;
        }
    }
    w->done_before += atomic_load(&run->published);
    w->failed_before += atomic_load(&run->failed);
    w->steps_before += atomic_load(&run->steps_done);
    w->seen = 0;
    vd_run_close(run);
    return code;
}

static int64_t count_steps(const call *c) {
    int64_t steps = 0;
    for (int i = 0; i < c->count; i++)
        steps += c->samples[i].job->steps;
    return steps;
}

/* Samples of runs that never began. */
static void mark_rest(vdpp_report *r, int first, const vd_error *why) {
    for (int i = first; i < r->sample_count; i++) {
        if (r->samples[i].code != 0 || r->samples[i].finished_s > 0)
            continue;
        r->samples[i].code = (int)why->code;
        memcpy(r->samples[i].error, why->message, sizeof r->samples[i].error);
    }
}

static vd_code run_call(call *c, vd_account *account, vd_error *err) {
    watcher w = {.call = c, .report = vd_account_report(account), .steps = count_steps(c)};
    vd_run_shape shape;
    int count = 0;
    for (int first = 0; first < c->count; first += count) {
        if (first > 0 && atomic_load(&c->engine->stop)) {
            vd_fail(err, VD_ERR_TRY_AGAIN, "not begun: the run was interrupted");
            mark_rest(w.report, first, err);
            return VD_OK;
        }
        count = shape_run(c, first, &shape);
        vd_code code = run_shape(c, first, count, &shape, account, &w, err);
        if (code != VD_OK) {
            mark_rest(w.report, first, err);
            return code;
        }
    }
    vd_model_warn_unused(c->engine->model, &c->engine->log);
    return VD_OK;
}

/* The code of a call whose runs went well: from its samples. */
static vd_code judge_samples(const vdpp_report *r, vd_error *err) {
    const vdpp_sample_result *first = NULL;
    bool left = false;
    for (int i = 0; i < r->sample_count; i++) {
        const vdpp_sample_result *s = &r->samples[i];
        left |= s->code == VD_ERR_TRY_AGAIN;
        if (s->code != VD_OK && s->code != VD_ERR_TRY_AGAIN && !first)
            first = s;
    }
    if (left)
        return vd_fail(err, VD_ERR_TRY_AGAIN, "interrupted: %d of %d samples made; finished outputs are kept",
                       r->made, r->sample_count);
    if (!first)
        return VD_OK;
    return vd_fail(err, r->made ? VD_ERR_SOME_FAILED : (vd_code)first->code,
                   "%d of %d samples failed; first: %s", r->failed, r->sample_count, first->error);
}

static vd_code make_all(call *c, const vdpp_sample *samples, vdpp_report **report, vd_error *err) {
    VD_TRY(call_open(c, samples, err));
    vd_account *account;
    VD_TRY(vd_account_open(c->engine, c->count, &account, err));
    vd_code code = run_call(c, account, err);
    if (!vd_account_report(account)->mode) { /* nothing was run */
        vd_account_close(account);
        return code;
    }
    vd_error finish;
    if (vd_account_finish(account, c->began, c->loaded ? c->loaded : c->began, vd_now(), report, &finish) !=
            VD_OK &&
        code == VD_OK) {
        *err = finish;
        code = finish.code;
    }
    vd_account_close(account);
    return code == VD_OK ? judge_samples(*report, err) : code;
}

int vdpp_run(vdpp_engine *e, const vdpp_sample *samples, int count, vdpp_report **report, vdpp_error *error) {
    vd_error err = {0};
    call c = {.engine = e, .count = count, .began = vd_now()};
    *report = NULL;
    vd_code code = count < 1 ? vd_fail(&err, VD_ERR_USAGE, "nothing to make: %d samples", count)
                             : make_all(&c, samples, report, &err);
    call_close(&c);
    return code == VD_OK ? 0 : give(&err, error);
}

/* Work of each part in multiply-adds times two, as the programs count it. */
static void describe_work(const vd_run *run, vd_text *text) {
    double step = vd_program_flops(run->programs[VD_ROLE_STEP]) * 1e-9;
    vd_text_add(text, "work per sample: encode %.3g, step %.3g, decode %.3g GFLOP\n",
                run->costs.encode * step, step, run->costs.decode * step);
}

static vd_code describe_memory(const vdpp_engine *e, const vd_run *run, vd_text *text, vd_error *err) {
    vd_memory_plan memory;
    VD_TRY(vd_memory_plan_of(e, run, &memory, err));
    vd_memory_print(&memory, run, text);
    return vd_memory_check(&memory, run, err);
}

static vd_code describe_run(call *c, int first, int count, const vd_run_shape *s, vd_text *text,
                            vd_error *err) {
    vd_run *run = NULL;
    VD_TRY(open_run(c, first, count, s, &run, err));
    vd_text_add(text, "samples %d to %d: %d x %d pixels, %d frames, %d steps%s%s, mode %s\n", first,
                first + count - 1, s->width, s->height, s->video.frames, s->video.steps,
                s->video.guided ? ", guided" : "", s->latents_only ? ", latents only" : "",
                vd_mode_name(run->plan->mode));
    describe_work(run, text);
    vd_timeline t;
    vd_code code = vd_simulate(run->plan, &run->costs, &t, err);
    if (code == VD_OK) {
        char *drawing = vd_plan_text(run->plan, &t, 100);
        vd_text_add(text, "%s", drawing ? drawing : "");
        free(drawing);
        vd_timeline_free(&t);
        code = describe_memory(c->engine, run, text, err);
    }
    vd_run_close(run);
    return code;
}

static vd_code describe_all(call *c, const vdpp_sample *samples, vd_text *text, vd_error *err) {
    VD_TRY(call_open(c, samples, err));
    vd_run_shape shape;
    int count = 0;
    for (int first = 0; first < c->count; first += count) {
        count = shape_run(c, first, &shape);
        VD_TRY(describe_run(c, first, count, &shape, text, err));
    }
    return text->failed ? vd_fail_memory(err, "a description", text->length) : VD_OK;
}

int vdpp_describe(vdpp_engine *e, const vdpp_sample *samples, int count, char **out, vdpp_error *error) {
    vd_error err = {0};
    call c = {.engine = e, .count = count, .began = vd_now()};
    vd_text text = {0};
    vd_code code = describe_all(&c, samples, &text, &err);
    call_close(&c);
    *out = NULL;
    if (code == VD_OK)
        *out = text.text;
    else
        vd_text_free(&text);
    return code == VD_OK ? 0 : give(&err, error);
}

/* ---- tuning ---- */

static void log_trial(void *user, const vd_trial *t) {
    if (t->right)
        vd_log_line(user, VD_LOG_INFO, "%s: %s: %.1f us", t->problem, t->plan, t->seconds * 1e6);
    else
        vd_log_line(user, VD_LOG_INFO, "%s: %s: wrong or refused", t->problem, t->plan);
}

/* Opening a run compiles its programs on the first device; the arenas are not there yet. */
static vd_code tune_run(call *c, int first, int count, const vd_run_shape *shape, vd_error *err) {
    vdpp_engine *e = c->engine;
    vd_backend *b = e->devices.backend;
    vd_run *run = NULL;
    VD_TRY(open_run(c, first, count, shape, &run, err));
    vd_code code = b->table->tune(b, e->devices.opened[0], log_trial, &e->log, err);
    vd_run_close(run);
    return code;
}

static vd_code tune_all(call *c, const vdpp_sample *samples, vd_error *err) {
    const vd_backend *b = c->engine->devices.backend;
    if (!b->table->tune)
        return vd_fail(err, VD_ERR_UNAVAILABLE,
                       "nothing to tune on %s devices; name a GPU with --devices cuda:0", b->kind);
    VD_TRY(call_open(c, samples, err));
    vd_run_shape shape;
    int count = 0;
    for (int first = 0; first < c->count; first += count) {
        count = shape_run(c, first, &shape);
        VD_TRY(tune_run(c, first, count, &shape, err));
    }
    return VD_OK;
}

int vdpp_tune(vdpp_engine *e, const vdpp_sample *samples, int count, vdpp_error *error) {
    vd_error err = {0};
    call c = {.engine = e, .count = count, .began = vd_now()};
    vd_code code = tune_all(&c, samples, &err);
    call_close(&c);
    return code == VD_OK ? 0 : give(&err, error);
}
