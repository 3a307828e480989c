#include "schedule/print.h"

#include <jansson.h>

static const char *const kinds[] = {
    [VD_TASK_ENCODE] = "encode", [VD_TASK_STEPS] = "steps", [VD_TASK_DECODE] = "decode"};

static json_t *step_or_null(int step) {
    return step < 0 ? json_null() : json_integer(step);
}

static json_t *task_json(const vd_task *task, double start, double end) {
    return json_pack("{s:i s:i s:s s:o s:o s:f s:f}", "device", task->device, "sample", task->sample, "kind",
                     kinds[task->kind], "first", step_or_null(task->first), "last", step_or_null(task->last),
                     "start", start, "end", end);
}

static json_t *handoff_json(const vd_handoff *h) {
    return json_pack("{s:i s:i s:i s:i}", "sample", h->sample, "from", h->from, "to", h->to, "after_step",
                     h->after_step);
}

static json_t *plan_json(const vd_plan *plan, const vd_timeline *t) {
    json_t *tasks = json_array(), *handoffs = json_array();
    bool failed = !tasks || !handoffs;
    for (int i = 0; i < plan->task_count && !failed; i++)
        failed = json_array_append_new(tasks, task_json(&plan->tasks[i], t->start[i], t->end[i])) != 0;
    for (int i = 0; i < plan->handoff_count && !failed; i++)
        failed = json_array_append_new(handoffs, handoff_json(&plan->handoffs[i])) != 0;
    if (failed) {
        json_decref(tasks);
        json_decref(handoffs);
        return NULL;
    }
    return json_pack("{s:s s:i s:i s:i s:f s:f s:f s:o s:o}", "mode", vd_mode_name(plan->mode), "devices",
                     plan->devices, "samples", plan->samples, "steps", plan->steps, "makespan", t->makespan,
                     "first_result", t->first_result, "bubble_share", t->bubble_share, "tasks", tasks,
                     "handoffs", handoffs);
}

char *vd_plan_json(const vd_plan *plan, const vd_timeline *t) {
    json_t *root = plan_json(plan, t);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(root);
    return text;
}
