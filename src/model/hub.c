#include "model/hub.h"

#include "base/file.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* ORG/NAME[@REV] taken apart. */
typedef struct repo {
    char org[128], name[128], revision[128];
} repo;

/* Joins into a path; false when it does not fit, which callers treat as "not there". */
static bool join(char *out, size_t cap, const char *format, const char *a, const char *b) {
    return snprintf(out, cap, format, a, b) < (int)cap;
}

static bool is_folder(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

static bool is_file(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode);
}

static bool holds_model(const char *folder) {
    char path[VD_PATH_CAP];
    return join(path, sizeof path, "%s/%s", folder, "model_index.json") && is_file(path);
}

/* One part of a hub name: letters, digits, '.', '_', '-', not beginning with '.' (so never "..") and without
 * "--", which the cache uses to join parts. */
static bool take_part(const char *text, size_t length, char *out, size_t cap) {
    if (length == 0 || length >= cap || text[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("._-", text[i]))
            return false;
    memcpy(out, text, length);
    out[length] = '\0';
    return !strstr(out, "--");
}

/* A revision may have slashes ("refs/pr/1"); each part follows the rule above. */
static bool take_revision(const char *text, repo *out) {
    char part[sizeof out->revision];
    if (strlen(text) >= sizeof out->revision)
        return false;
    strcpy(out->revision, text);
    for (const char *p = text;;) {
        size_t n = strcspn(p, "/");
        if (!take_part(p, n, part, sizeof part))
            return false;
        if (p[n] == '\0')
            return true;
        p += n + 1;
    }
}

static bool parse_repo(const char *model, repo *out) {
    size_t org = strcspn(model, "/");
    if (model[org] == '\0')
        return false;
    const char *name = model + org + 1;
    size_t length = strcspn(name, "@");
    return take_part(model, org, out->org, sizeof out->org) &&
           take_part(name, length, out->name, sizeof out->name) &&
           take_revision(name[length] ? name + length + 1 : "main", out);
}

/* The folder that Hugging Face's own tools would use. */
static bool cache_folder(char *out, size_t cap) {
    static const struct {
        const char *variable, *format;
    } places[] = {
        {"HF_HUB_CACHE", "%s"},
        {"HF_HOME", "%s/hub"},
        {"XDG_CACHE_HOME", "%s/huggingface/hub"},
        {"HOME", "%s/.cache/huggingface/hub"},
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *value = getenv(places[i].variable);
        if (value && *value)
            return snprintf(out, cap, places[i].format, value) < (int)cap;
    }
    return false;
}

/* The commit that `ref` names: the text of the file refs/REV, or REV itself when it is a commit. */
static void read_commit(const char *folder, const repo *r, char *commit, size_t cap) {
    char path[VD_PATH_CAP], *text;
    size_t count;
    vd_error ignored;
    snprintf(commit, cap, "%s", r->revision);
    if (!join(path, sizeof path, "%s/refs/%s", folder, r->revision) || !is_file(path) ||
        vd_file_read(path, "ref", 256, &text, &count, &ignored) != VD_OK)
        return;
    size_t length = strcspn(text, " \r\n");
    if (!take_part(text, length, commit, cap))
        *commit = '\0';
    free(text);
}

/* Finds the snapshot in the cache; false when it is absent or incomplete. */
static bool find_snapshot(const repo *r, char *folder, size_t cap) {
    char cache[VD_PATH_CAP], repo_folder[VD_PATH_CAP + sizeof(repo)], commit[128];
    if (!cache_folder(cache, sizeof cache))
        return false;
    snprintf(repo_folder, sizeof repo_folder, "%s/models--%s--%s", cache, r->org, r->name);
    read_commit(repo_folder, r, commit, sizeof commit);
    return *commit && join(folder, cap, "%s/snapshots/%s", repo_folder, commit) && holds_model(folder);
}

static vd_code fail_not_cached(const char *model, const repo *r, vd_error *err) {
    char cache[VD_PATH_CAP], revision[160] = "";
    if (strcmp(r->revision, "main") != 0)
        snprintf(revision, sizeof revision, " --revision %s", r->revision);
    return vd_fail(
        err, VD_ERR_NO_INPUT,
        "model '%s' is neither a folder nor complete in the Hugging Face cache; to fetch it: accept the "
        "licence at "
        "https://huggingface.co/%s/%s if it asks for one, log in with a token (hf auth login), run: "
        "hf download %s/%s%s --include '*.[jf][sp]*' (configuration and fp16 weights); or give a local "
        "diffusers "
        "folder with --model DIR (looked in '%.150s')",
        model, r->org, r->name, r->org, r->name, revision,
        cache_folder(cache, sizeof cache) ? cache : "no cache folder: HOME is not set");
}

/* What is no diffusers folder and no hub name. */
static vd_code fail_path(const char *model, vd_error *err) {
    if (is_file(model))
        return vd_fail(
            err, VD_ERR_DATA,
            "model '%s' is a single file; vdpp reads diffusers folders, where each network has its own "
            "configuration: give the folder with model_index.json, or ORG/NAME from the Hugging Face cache",
            model);
    if (is_folder(model))
        return vd_fail(err, VD_ERR_NO_INPUT,
                       "model '%s' has no model_index.json; give a diffusers folder with --model", model);
    return vd_fail(err, VD_ERR_NO_INPUT,
                   "model '%s': no such folder; give a diffusers folder or ORG/NAME with --model", model);
}

vd_code vd_hub_resolve(const char *model, char *folder, size_t cap, vd_error *err) {
    repo r;
    if (*model && holds_model(model))
        return join(folder, cap, "%s%s", model, "")
                   ? VD_OK
                   : vd_fail(err, VD_ERR_NO_INPUT, "model '%.200s...': path too long", model);
    if (is_file(model) || is_folder(model) || !parse_repo(model, &r))
        return fail_path(model, err);
    return find_snapshot(&r, folder, cap) ? VD_OK : fail_not_cached(model, &r, err);
}

bool vd_hub_has(const char *model) {
    char folder[VD_PATH_CAP];
    repo r;
    return parse_repo(model, &r) && find_snapshot(&r, folder, sizeof folder);
}
