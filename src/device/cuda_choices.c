/* The tuner's choices on disk. A file is named by a hash of what it is good for, and says it in full;
 * whatever does not read, match or load is as if it were not there. */
#include "device/cuda_math.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT = 16 << 20 }; /* bytes; a compiled kernel inside takes up to 200 kB */

vd_code vd_cuda_choice_path(const vd_cuda_math *m, const vd_cuda_problem *problem, char path[VD_PATH_CAP],
                            vd_error *err) {
    char key[VD_CUDA_KEY_CAP], all[sizeof m->stack + VD_CUDA_KEY_CAP];
    vd_cuda_problem_key(problem, key);
    int used = snprintf(all, sizeof all, "%s\n%s", m->stack, key);
    used = snprintf(path, VD_PATH_CAP, "%s/plan-%016" PRIx64 ".json", m->cache_folder,
                    vd_hash64(all, (size_t)used));
    return used < VD_PATH_CAP ? VD_OK
                              : vd_fail(err, VD_ERR_CANNOT_CREATE, "'%.200s...': path too long", path);
}

/* ---- saving ---- */

/* Of what a library gave: the product's, where a gate follows. */
static const vd_cuda_plan *library_plan(const vd_cuda_plan *p) {
    return p->up ? p->up : p;
}

static vd_code plan_text(const vd_cuda_plan *p, char **text, vd_error *err) {
    return p->dnn ? vd_dnn_store(p, text, err) : vd_lt_store(p, text, err);
}

vd_code vd_cuda_choice_save(const vd_cuda_plan *p, vd_error *err) {
    char key[VD_CUDA_KEY_CAP], path[VD_PATH_CAP], *text;
    const vd_cuda_plan *own = library_plan(p);
    if (!p->math->cache_folder)
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "no cache folder for the choice of a plan");
    vd_cuda_problem_key(&p->problem, key);
    VD_TRY(vd_cuda_choice_path(p->math, &p->problem, path, err));
    vd_code status = plan_text(own, &text, err);
    if (status == VD_OK) {
        json_t *choice =
            json_pack("{s:s, s:s, s:s, s:s, s:b, s:b, s:s}", "for", p->math->stack, "problem", key, "library",
                      own->dnn ? "cuDNN" : "cuBLASLt", "name", own->name, "precompiled",
                      (int)own->precompiled, "gate follows", p->up != NULL, "plan", text);
        status = choice ? vd_json_save(choice, path, true, err) : vd_fail_memory(err, path, strlen(text));
        json_decref(choice);
    }
    free(text);
    return status;
}

/* ---- loading ---- */

static vd_code expect(const json_t *choice, const char *path, const char *member, const char *value,
                      vd_error *err) {
    const char *found = "";
    VD_TRY(vd_json_string(choice, path, member, true, &found, err));
    return strcmp(found, value) == 0 ? VD_OK : vd_fail(err, VD_ERR_DATA, "'%s' is for %s", path, found);
}

static vd_code fill_plan(vd_cuda_plan *p, const json_t *choice, const char *path, vd_error *err) {
    const char *library = "", *name = "", *text = "";
    VD_TRY(vd_json_string(choice, path, "library", true, &library, err));
    VD_TRY(vd_json_string(choice, path, "name", true, &name, err));
    VD_TRY(vd_json_string(choice, path, "plan", true, &text, err));
    VD_TRY(vd_json_bool(choice, path, "precompiled", true, &p->precompiled, err));
    bool dnn = strcmp(library, "cuDNN") == 0;
    if (!dnn && !p->math->device)
        return vd_fail(err, VD_ERR_UNAVAILABLE, "'%s' needs a device", path);
    snprintf(p->name, sizeof p->name, "%s", name);
    VD_TRY(dnn ? vd_dnn_restore(p, text, strlen(text), err) : vd_lt_restore(p, text, strlen(text), err));
    if (p->workspace > p->math->workspace_cap)
        return vd_fail(err, VD_ERR_UNAVAILABLE, "'%s' wants %zu bytes of workspace", path, p->workspace);
    return VD_OK;
}

static vd_code fill_gated(vd_cuda_plan *p, const json_t *choice, const char *path, vd_error *err) {
    const vd_cuda_problem product = vd_gate_product(&p->problem.gate);
    vd_cuda_plan *up = vd_cuda_plan_new(p->math, &product, err);
    vd_code status = up ? fill_plan(up, choice, path, err) : err->code;
    if (status == VD_OK)
        vd_gate_take(p, up);
    else
        vd_cuda_plan_close(up);
    return status;
}

static vd_code fill(vd_cuda_plan *p, const json_t *choice, const char *path, const char *key, vd_error *err) {
    bool gate_follows = false;
    VD_TRY(expect(choice, path, "for", p->math->stack, err));
    VD_TRY(expect(choice, path, "problem", key, err));
    VD_TRY(vd_json_bool(choice, path, "gate follows", true, &gate_follows, err));
    if (gate_follows && p->problem.kind != VD_CUDA_GATE)
        return vd_fail(err, VD_ERR_DATA, "'%s' has a gate where there is none", path);
    return gate_follows ? fill_gated(p, choice, path, err) : fill_plan(p, choice, path, err);
}

static vd_code load_plan(vd_cuda_math *m, const vd_cuda_problem *problem, const char *path, const char *key,
                         vd_cuda_plan **out, vd_error *err) {
    json_t *choice;
    VD_TRY(vd_json_load(path, LIMIT, &choice, err));
    vd_cuda_plan *p = vd_cuda_plan_new(m, problem, err);
    vd_code status = p ? fill(p, choice, path, key, err) : err->code;
    json_decref(choice);
    if (status == VD_OK)
        *out = p;
    else
        vd_cuda_plan_close(p);
    return status;
}

vd_cuda_plan *vd_cuda_choice_load(vd_cuda_math *m, const vd_cuda_problem *problem) {
    char key[VD_CUDA_KEY_CAP], path[VD_PATH_CAP];
    vd_cuda_plan *p = NULL;
    vd_error err = {0};
    if (!m->cache_folder)
        return NULL;
    vd_cuda_problem_key(problem, key);
    vd_code status = vd_cuda_choice_path(m, problem, path, &err);
    if (status == VD_OK)
        status = load_plan(m, problem, path, key, &p, &err);
    if (status != VD_OK && status != VD_ERR_NO_INPUT)
        vd_log_line(m->log, VD_LOG_DEBUG, "%s: no choice of the tuner: %s", key, err.message);
    return p;
}
