#include "app/commands.h"

#include "app/defaults.h"
#include "schedule/print.h"
#include "schedule/simulate.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { DEFAULT_STEPS = 25, DEFAULT_COLUMNS = 100 };

static int columns_of(FILE *out) {
    struct winsize size;
    return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : DEFAULT_COLUMNS;
}

static vd_code print_plan(const vd_plan *plan, const vd_timeline *timeline, bool json, FILE *out,
                          vd_error *err) {
    char *text = json ? vd_plan_json(plan, timeline) : vd_plan_text(plan, timeline, columns_of(out));
    if (!text)
        return vd_fail_memory(err, "the drawing of the plan", (unsigned long long)plan->task_count * 128);
    size_t length = strlen(text);
    fputs(text, out);
    if (length > 0 && text[length - 1] != '\n')
        fputc('\n', out);
    free(text);
    return VD_OK;
}

vd_code vd_plan_command(const vd_options *o, FILE *out, vd_error *err) {
    int devices = vd_device_count(o, 1);
    vd_plan_request request = {.devices = devices,
                               .samples = o->request.samples,
                               .steps = o->request.job.steps > 0 ? o->request.job.steps : DEFAULT_STEPS,
                               .costs = o->costs,
                               .split = o->split.count > 0 ? o->split.values : NULL,
                               .decode = true};
    if (devices < 1 || devices > VD_DEVICE_LIMIT)
        return vd_fail(err, VD_ERR_USAGE, "--gpus '%d': must be from 1 to %d", devices, VD_DEVICE_LIMIT);
    if (o->split.count > 0 && o->split.count != devices)
        return vd_fail(err, VD_ERR_USAGE, "--split has %d numbers for %d devices; give one for each",
                       o->split.count, devices);
    if ((o->mode && !vd_mode_parse(o->mode, &request.mode)) ||
        (o->goal && !vd_goal_parse(o->goal, &request.goal)))
        return vd_fail(err, VD_ERR_INTERNAL, "mode '%s' or goal '%s' has no planner", o->mode, o->goal);
    vd_plan *plan;
    vd_timeline timeline;
    VD_TRY(vd_plan_make(&request, &plan, err));
    vd_code code = vd_simulate(plan, &request.costs, &timeline, err);
    if (code == VD_OK) {
        code = print_plan(plan, &timeline, o->text_format && strcmp(o->text_format, "json") == 0, out, err);
        vd_timeline_free(&timeline);
    }
    vd_plan_free(plan);
    return code;
}
