#include "app/batch.h"
#include "app/commands.h"
#include "app/defaults.h"
#include "app/interrupt.h"
#include "app/report.h"
#include "app/screen.h"
#include "base/text.h"
#include "model/config.h"
#include "model/hub.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One run from options to files. */
typedef struct generation {
    vd_options options; /* a copy: --latent-shape fills in the size */
    int argument_count; /* the whole command line, for the report */
    char *const *arguments;
    vd_screen screen;
    vd_device_names devices;
    char model[VD_PATH_CAP], image[VD_PATH_CAP], cache[VD_PATH_CAP];
    vd_batch batch;
    vdpp_engine *engine;
    int interrupts_told;
} generation;

/* Tells the user something by the way. */
static void say(generation *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(generation *g, const char *format, ...) {
    char line[VD_LINE_CAP];
    va_list arguments;
    va_start(arguments, format);
    vd_format_escaped(line, sizeof line, format, arguments);
    va_end(arguments);
    if (!g->options.quiet)
        vd_screen_log(&g->screen, VDPP_LOG_INFO, line);
}

static void on_log(void *user, int level, const char *line) {
    vd_screen_log(&((generation *)user)->screen, level, line);
}

static void on_progress(void *user, const vdpp_progress *progress) {
    generation *g = user;
    int interrupts = vd_interrupt_count();
    vd_screen_progress(&g->screen, progress);
    if (interrupts > 0 && g->interrupts_told == 0)
        say(g, "interrupted: finishing what is in flight; once more to leave at once");
    g->interrupts_told = interrupts;
    if (interrupts > 1) {
        vd_batch_remove_temporaries(&g->batch);
        _exit(VD_ERR_INTERRUPTED);
    }
}

/* `folder` receives where the model lies: a missing one is told before any output folder is made. */
static vd_code take_model(generation *g, char *folder, vd_error *err) {
    if (g->options.model)
        return vd_hub_resolve(g->options.model, folder, VD_PATH_CAP, err);
    VD_TRY(vd_default_model(g->model, err));
    g->options.model = g->model;
    say(g, "no --model: using the sample model in %s; %s", g->model, vd_real_model_hint());
    return vd_hub_resolve(g->model, folder, VD_PATH_CAP, err);
}

/* --latent-shape counts in latents; a job counts in pixels, and how many of them a latent has the model says.
 */
static vd_code take_latent_shape(generation *g, const char *folder, vd_error *err) {
    const vd_latent_shape *shape = &g->options.latent_shape;
    vdpp_job *job = &g->options.request.job;
    vd_config config;
    if (shape->count == 0)
        return VD_OK;
    VD_TRY(vd_config_load(folder, &config, err));
    if (shape->channels != config.vae.latent_channels)
        return vd_fail(err, VD_ERR_USAGE, "--latent-shape: C is %d, but the model's latents have %d channels",
                       shape->channels, config.vae.latent_channels);
    int factor = vd_vae_factor(&config.vae);
    job->latents_only = 1;
    job->frames = shape->frames;
    job->width = shape->width * factor;
    job->height = shape->height * factor;
    return VD_OK;
}

static vd_code check_schedule(const vd_options *o, int devices, vd_error *err) {
    if (o->split.count == 0)
        return VD_OK;
    if (o->mode && strcmp(o->mode, "pipeline") != 0)
        return vd_fail(err, VD_ERR_USAGE,
                       "--split divides the steps of a pipeline; it means nothing with --parallel %s",
                       o->mode);
    if (o->split.count != devices)
        return vd_fail(err, VD_ERR_USAGE, "--split has %d numbers for %d devices; give one for each",
                       o->split.count, devices);
    return VD_OK;
}

static vd_code check_report(const vd_options *o, vd_error *err) {
    struct stat there;
    if (o->report && !o->overwrite && lstat(o->report, &there) == 0)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "--report: '%s' exists already; replace it with -y",
                       o->report);
    return o->report && !o->dry_run ? vd_make_parents(o->report, err) : VD_OK;
}

/* Everything that can be refused before the model is read. */
static vd_code prepare(generation *g, vd_error *err) {
    vd_options *o = &g->options;
    char folder[VD_PATH_CAP];
    VD_TRY(vd_choose_devices(o, &g->devices, err));
    const vdpp_device_list *devices = &g->devices.list;
    VD_TRY(check_schedule(o, devices->count, err));
    if (devices->fell_back)
        say(g, "no GPU: using %d virtual CPU device%s", devices->count, devices->count == 1 ? "" : "s");
    if (o->p2p && strncmp(devices->names[0], "cpu", 3) == 0)
        say(g, "--p2p %s has no effect on CPU devices", o->p2p);
    VD_TRY(take_model(g, folder, err));
    VD_TRY(take_latent_shape(g, folder, err));
    const vd_batch_context context = {vd_default_image(g->image) ? g->image : NULL, devices->count};
    VD_TRY(vd_batch_build(o, &context, &g->batch, err));
    for (int i = 0; i < g->batch.job_count; i++)
        if (g->batch.jobs[i].random_seed)
            say(g, "seed drawn for job %d: %llu", i, (unsigned long long)g->batch.jobs[i].seed);
    VD_TRY(check_report(o, err));
    if (o->dump && !o->dry_run)
        VD_TRY(vd_batch_check_dump(&g->batch, o->dump, o->overwrite, err));
    return o->dry_run ? VD_OK : vd_batch_check_outputs(&g->batch, o->overwrite, err);
}

static vd_code public_error(const vdpp_error *from, vd_code code, vd_error *to) {
    snprintf(to->message, sizeof to->message, "%s", from->message);
    return to->code = code;
}

static vd_code open_engine(generation *g, vd_error *err) {
    const vd_options *o = &g->options;
    vdpp_options e;
    vdpp_error failure = {0};
    vdpp_options_init(&e);
    e.model = o->model;
    e.dtype = o->dtype;
    e.devices = g->devices.names;
    e.device_count = g->devices.list.count;
    e.p2p = o->p2p;
    e.cache_folder = vd_default_cache(g->cache) ? g->cache : NULL;
    e.cuda_module = o->cuda_module;
    e.mode = o->mode ? o->mode : e.mode;
    e.goal = o->goal ? o->goal : e.goal;
    e.split = o->split.count > 0 ? o->split.values : NULL;
    e.split_count = o->split.count;
    e.formats = g->batch.format_list;
    e.dump = o->dump;
    e.overwrite = o->overwrite;
    e.stall_timeout_s = o->stall_timeout_s >= 0 ? o->stall_timeout_s : e.stall_timeout_s;
    e.inject = o->inject;
    e.log = on_log;
    e.progress = on_progress;
    e.log_level = o->quiet ? VDPP_LOG_ERROR : o->verbose ? VDPP_LOG_DEBUG : VDPP_LOG_INFO;
    e.user = g;
    vd_code code = (vd_code)vdpp_open(&e, &g->engine, &failure);
    return code == VD_OK ? VD_OK : public_error(&failure, code, err);
}

static vd_code dry_run(generation *g, vd_error *err) {
    char *text;
    vdpp_error failure = {0};
    vd_code code =
        (vd_code)vdpp_describe(g->engine, g->batch.samples, g->batch.sample_count, &text, &failure);
    if (code != VD_OK)
        return public_error(&failure, code, err);
    fputs(text, stdout);
    free(text);
    return VD_OK;
}

static vd_code tune(generation *g, vd_error *err) {
    vdpp_error failure = {0};
    vd_code code = (vd_code)vdpp_tune(g->engine, g->batch.samples, g->batch.sample_count, &failure);
    return code == VD_OK ? VD_OK : public_error(&failure, code, err);
}

/* None made: the code of the first failure says more than "some failed". */
static vd_code outcome(const vdpp_report *r, vd_code code, vd_error *err) {
    for (int i = 0; code == VD_ERR_SOME_FAILED && r->made == 0 && i < r->sample_count; i++)
        if (r->samples[i].code != VD_OK)
            return vd_fail(err, (vd_code)r->samples[i].code, "no sample was made; the first: %s",
                           r->samples[i].error);
    return code;
}

static vd_code save_report(generation *g, const vdpp_report *r, vd_error *err) {
    const vd_report_context context = {r, g->engine, g->batch.samples, g->argument_count, g->arguments};
    return g->options.report ? vd_report_save(&context, g->options.report, g->options.overwrite, err) : VD_OK;
}

static vd_code run(generation *g, vd_error *err) {
    vdpp_error failure = {0};
    vdpp_report *report = NULL;
    vd_interrupt_watch(g->engine);
    vd_code code = (vd_code)vdpp_run(g->engine, g->batch.samples, g->batch.sample_count, &report, &failure);
    vd_interrupt_watch(NULL);
    if (code != VD_OK)
        public_error(&failure, code, err);
    if (!report)
        return code;
    vd_screen_clear(&g->screen);
    if (!g->options.quiet)
        vd_summary_print(report, g->batch.samples, stderr);
    for (int i = 0; i < report->sample_count; i++)
        for (int k = 0; k < report->samples[i].file_count; k++)
            puts(report->samples[i].files[k]);
    code = outcome(report, code, err);
    vd_error unsaved;
    if (save_report(g, report, &unsaved) != VD_OK && code == VD_OK)
        code = (*err = unsaved).code;
    vdpp_report_free(report);
    return code;
}

/* From options to closing, with `work` in between. */
static vd_code generate(generation *g, vd_code (*work)(generation *g, vd_error *err), vd_error *err) {
    vd_screen_open(&g->screen, &g->options);
    vd_code code = vd_interrupt_install(err);
    if (code == VD_OK)
        code = prepare(g, err);
    if (code == VD_OK)
        code = open_engine(g, err);
    if (code == VD_OK)
        code = work(g, err);
    vdpp_close(g->engine);
    vd_screen_close(&g->screen);
    vd_batch_free(&g->batch);
    free(g);
    return code;
}

vd_code vd_generate_command(const vd_options *options, int argument_count, char *const *arguments,
                            vd_error *err) {
    generation *g = calloc(1, sizeof *g);
    if (!g)
        return vd_fail_memory(err, "the run", sizeof *g);
    g->options = *options;
    g->argument_count = argument_count;
    g->arguments = arguments;
    return generate(g, options->dry_run ? dry_run : run, err);
}

vd_code vd_tune_command(const vd_options *options, FILE *out, vd_error *err) {
    (void)out;
    generation *g = calloc(1, sizeof *g);
    if (!g)
        return vd_fail_memory(err, "the run", sizeof *g);
    g->options = *options;
    g->options.dry_run = true; /* no outputs */
    return generate(g, tune, err);
}
