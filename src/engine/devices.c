#include "engine/devices.h"

#include "base/text.h"
#include "base/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    VIRTUAL_DEVICES = 8, /* at most when nobody says how many */
    NUMBER_LIMIT = 1024, /* devices of a kind */
};

/* ---- order ---- */

static int lowest_unused(const int *nodes, int count, const bool *used, int node) {
    int i = 0;
    while (i < count && (used[i] || nodes[i] != node))
        i++;
    return i;
}

static int node_size(const int *nodes, int count, int node) {
    int size = 0;
    for (int i = 0; i < count; i++)
        size += nodes[i] == node;
    return size;
}

/* The node to take devices from next, when `left` are still wanted: the first that has them all, else the
 * largest. */
static int best_node(const int *nodes, int count, const bool *used, int left) {
    int best = -1, best_size = 0;
    for (int i = 0; i < count && best_size < left; i++) {
        int size = node_size(nodes, count, nodes[i]);
        if (!used[i] && size > best_size) {
            best = nodes[i];
            best_size = size;
        }
    }
    return best;
}

void vd_order_devices(const int *nodes, int count, int wanted, int *chosen) {
    bool used[VD_MAX_DEVICES] = {false};
    for (int left = wanted, node; left > 0;) {
        node = best_node(nodes, count, used, left);
        for (int i; left > 0 && (i = lowest_unused(nodes, count, used, node)) < count; left--)
            used[i] = true;
    }
    for (int first = 0, at = 0; at < wanted; first++) {
        if (!used[first])
            continue;
        for (int i = first; i < count; i++)
            if (used[i] && nodes[i] == nodes[first]) {
                chosen[at++] = i;
                used[i] = false;
            }
    }
}

/* ---- choosing ---- */

/* What the options come to. */
typedef struct selection {
    bool cuda;
    bool fell_back; /* virtual devices because there is no GPU */
    int ordinals[VD_MAX_DEVICES], count;
} selection;

static vd_code check_count(int count, vd_error *err) {
    if (count >= 1 && count <= VD_MAX_DEVICES)
        return VD_OK;
    return vd_fail(err, VD_ERR_USAGE, "--gpus %d: must be from 1 to %d; nearest: %d", count, VD_MAX_DEVICES,
                   count < 1 ? 1 : VD_MAX_DEVICES);
}

static vd_code check_distinct(const selection *s, vd_error *err) {
    for (int i = 0; i < s->count; i++)
        for (int k = 0; k < i; k++)
            if (s->ordinals[i] == s->ordinals[k])
                return vd_fail(err, VD_ERR_USAGE,
                               "device cpu:%d is named twice; virtual devices are free, name another",
                               s->ordinals[i]);
    return VD_OK;
}

static vd_code parse_name(const char *name, bool *cuda, int *ordinal, vd_error *err) {
    uint64_t number;
    const char *colon = strchr(name, ':');
    *cuda = strncmp(name, "cuda:", 5) == 0;
    if ((!*cuda && strncmp(name, "cpu:", 4) != 0) || !vd_parse_u64(colon + 1, &number) ||
        number >= NUMBER_LIMIT)
        return vd_fail(err, VD_ERR_USAGE, "device '%.40s': must be cpu:N or cuda:N", name);
    *ordinal = (int)number;
    return VD_OK;
}

static vd_code take_names(const vdpp_options *o, selection *s, vd_error *err) {
    VD_TRY(check_count(s->count = o->device_count, err));
    for (int i = 0; i < s->count; i++) {
        bool cuda;
        VD_TRY(parse_name(o->devices[i], &cuda, &s->ordinals[i], err));
        if (i > 0 && cuda != s->cuda)
            return vd_fail(err, VD_ERR_USAGE, "devices '%s' and '%s': all must be of one kind", o->devices[0],
                           o->devices[i]);
        s->cuda = cuda;
    }
    return s->cuda ? VD_OK : check_distinct(s, err);
}

static vd_code take_virtual(const vdpp_options *o, selection *s, vd_error *err) {
    int usable = vd_cpu_count();
    usable = usable < VIRTUAL_DEVICES ? usable : VIRTUAL_DEVICES;
    VD_TRY(check_count(s->count = o->device_count < 0 ? usable : o->device_count, err));
    for (int i = 0; i < s->count; i++)
        s->ordinals[i] = o->gpus ? o->gpus[i] : i;
    return check_distinct(s, err);
}

/* Which `s->count` of the GPUs, and in which order. */
static vd_code order_gpus(const vd_backend *b, int there, selection *s, vd_error *err) {
    int nodes[VD_MAX_DEVICES];
    there = there < VD_MAX_DEVICES ? there : VD_MAX_DEVICES;
    for (int i = 0; i < there; i++) {
        vd_device_info info;
        VD_TRY(b->table->describe(b, i, &info, err));
        nodes[i] = info.node;
    }
    vd_order_devices(nodes, there, s->count, s->ordinals);
    return VD_OK;
}

static vd_code check_gpus(const selection *s, int there, vd_error *err) {
    for (int i = 0; i < s->count; i++)
        if (s->ordinals[i] >= there)
            return vd_fail(err, VD_ERR_UNAVAILABLE,
                           "there is no GPU cuda:%d; this machine has %d, from cuda:0 on", s->ordinals[i],
                           there);
    return VD_OK;
}

static vd_code take_gpus(const vdpp_options *o, const vd_backend *b, selection *s, vd_error *err) {
    int there = b->table->count(b);
    s->cuda = true;
    if (o->devices)
        return check_gpus(s, there, err);
    VD_TRY(check_count(s->count = o->device_count < 0 ? there : o->device_count, err));
    if (o->gpus) {
        memcpy(s->ordinals, o->gpus, (size_t)s->count * sizeof *s->ordinals);
        return check_gpus(s, there, err);
    }
    if (s->count > there)
        return vd_fail(err, VD_ERR_UNAVAILABLE,
                       "--gpus %d: this machine has %d; --devices cuda:0,cuda:0 puts two stages on one",
                       s->count, there);
    return order_gpus(b, there, s, err);
}

/* The kind that the options ask for; "auto" is settled by what there is. */
typedef enum want { WANT_CPU, WANT_CUDA, WANT_ANY } want;

static vd_code read_wish(const vdpp_options *o, selection *s, want *out, vd_error *err) {
    static const char *const names[] = {[WANT_CPU] = "cpu", [WANT_CUDA] = "cuda", [WANT_ANY] = "auto"};
    if (o->devices) {
        VD_TRY(take_names(o, s, err));
        *out = s->cuda ? WANT_CUDA : WANT_CPU;
        return VD_OK;
    }
    *out = WANT_ANY;
    for (want w = WANT_CPU; o->device && w <= WANT_ANY; w++)
        if (strcmp(names[w], o->device) == 0) {
            *out = w;
            return VD_OK;
        }
    return !o->device ? VD_OK
                      : vd_fail(err, VD_ERR_USAGE, "--device %s: must be auto, cuda or cpu", o->device);
}

static vd_code open_cuda(const vdpp_options *o, const vd_log *log, vd_backend **out, vd_error *err) {
    const vd_cuda_request request = {.log = log, .module = o->cuda_module, .cache_folder = o->cache_folder};
    return vd_cuda_backend_open(&request, out, err);
}

/* `*cuda` is opened to ask it what there is, and left open; NULL where nothing had to be asked or nothing is
 * there. */
static vd_code choose(const vdpp_options *o, const vd_log *log, selection *s, vd_backend **cuda,
                      vd_error *err) {
    want wanted;
    *s = (selection){0};
    *cuda = NULL;
    VD_TRY(read_wish(o, s, &wanted, err));
    if (wanted != WANT_CPU) {
        vd_code code = open_cuda(o, log, cuda, err);
        if (code == VD_OK)
            return take_gpus(o, *cuda, s, err);
        if (wanted == WANT_CUDA)
            return vd_fail(err, code, "--device cuda: %s; --device cpu needs none", err->message);
        vd_log_line(log, VD_LOG_DEBUG, "%s", err->message);
        s->fell_back = true;
    }
    return o->devices ? VD_OK : take_virtual(o, s, err);
}

int vdpp_choose_devices(const vdpp_options *options, vdpp_device_list *out, vdpp_error *error) {
    vd_error err = {0};
    vd_backend *asked = NULL;
    selection s;
    vd_code code = choose(options, NULL, &s, &asked, &err);
    if (asked)
        asked->table->close(asked);
    *out = (vdpp_device_list){.count = s.count, .fell_back = s.fell_back};
    for (int i = 0; i < s.count && code == VD_OK; i++)
        snprintf(out->names[i], sizeof *out->names, "%s:%d", s.cuda ? "cuda" : "cpu", s.ordinals[i]);
    error->code = (int)code;
    memcpy(error->message, err.message, sizeof error->message);
    return error->code;
}

/* ---- opening ---- */

/* Tests: puts a faulty device before each, of which the one named in "cpu:1:never-fires:3" has that fault;
 * all are wrapped, so that copies between them find the devices inside. */
static vd_code inject(vd_devices *d, const char *text, vd_error *err) {
    static const char *const kinds[] = {
        [VD_INJECT_LAUNCH_FAILS] = "launch-fails", [VD_INJECT_COPY_DROPPED] = "copy-dropped",
        [VD_INJECT_COPY_ZEROED] = "copy-zeroed",   [VD_INJECT_COPY_FLIPPED] = "copy-flipped",
        [VD_INJECT_NEVER_FIRES] = "never-fires",   [VD_INJECT_WAIT_DROPPED] = "wait-dropped",
        [VD_INJECT_NO_MEMORY] = "no-memory",       [VD_INJECT_LOST] = "device-lost"};
    char device[16] = "", kind[32];
    int hit = 0, f = VD_INJECT_LAUNCH_FAILS, k, length = 0;
    if (!text)
        return VD_OK;
    sscanf(text, "%*[a-z]:%*d%n", &length);
    snprintf(device, sizeof device, "%.*s", length, text);
    while (hit < d->count && strcmp(d->at[hit]->name, device) != 0)
        hit++;
    bool parsed = hit < d->count && sscanf(text + length, ":%31[a-z-]:%d", kind, &k) == 2;
    while (parsed && f <= VD_INJECT_LOST && strcmp(kinds[f], kind) != 0)
        f++;
    if (!parsed || f > VD_INJECT_LOST)
        return vd_fail(err, VD_ERR_USAGE, "--inject %s: must be DEVICE:KIND:COUNT", text);
    for (int i = 0; i < d->count; i++)
        VD_TRY(vd_faulty_device_open(d->opened[i], i == hit ? (vd_fault_kind)f : VD_INJECT_NOTHING, k,
                                     &d->at[i], err));
    return VD_OK;
}

static vd_code note_nodes(vd_devices *d, const int *ordinals, vd_error *err) {
    for (int i = 0; i < d->count; i++) {
        vd_device_info info = {.node = -1};
        if (d->backend->own_memory)
            VD_TRY(d->backend->table->describe(d->backend, ordinals[i], &info, err));
        d->nodes[i] = info.node;
    }
    return VD_OK;
}

vd_code vd_devices_open(const vdpp_options *o, const vd_log *log, vd_devices *d, vd_error *err) {
    selection s;
    *d = (vd_devices){.log = log};
    VD_TRY(vd_p2p_parse(o->p2p, &d->p2p, err));
    VD_TRY(choose(o, log, &s, &d->backend, err));
    if (!d->backend)
        VD_TRY(vd_cpu_backend_open(log, &d->backend, err));
    size_t pairs = (size_t)s.count * (size_t)s.count;
    d->routes = calloc(pairs, sizeof *d->routes);
    d->connected = calloc(pairs, sizeof *d->connected);
    if (!d->routes || !d->connected)
        return vd_fail_memory(err, "the ways between devices", pairs * sizeof *d->routes);
    VD_TRY(d->backend->table->open(d->backend, s.ordinals, s.count, d->opened, err));
    d->count = s.count;
    memcpy(d->ordinals, s.ordinals, sizeof d->ordinals);
    memcpy(d->at, d->opened, sizeof d->at);
    VD_TRY(note_nodes(d, s.ordinals, err));
    return inject(d, o->inject, err);
}

void vd_devices_close(vd_devices *d) {
    for (int i = 0; i < d->count; i++)
        d->at[i]->table->close(d->at[i]);
    if (d->backend)
        d->backend->table->close(d->backend);
    free(d->routes);
    free(d->connected);
}

/* ---- ways between them ---- */

static void tell_route(const vd_devices *d, const vd_route_info *r, const char *from, const char *to) {
    if (r->damaged)
        vd_log_line(d->log, VD_LOG_WARNING,
                    "%s to %s: peer copies arrive damaged, so states go through host memory "
                    "(an IOMMU that translates, or ACS, is the usual cause)",
                    from, to);
    else if (r->route == VD_ROUTE_STAGED && !r->reachable)
        vd_log_line(d->log, VD_LOG_INFO, "%s to %s: no peer access, so states go through host memory", from,
                    to);
    else
        vd_log_line(d->log, VD_LOG_DEBUG, "%s to %s: %s", from, to, vd_route_name(r->route));
}

vd_code vd_devices_connect(vd_devices *d, const vd_plan *plan, vd_error *err) {
    for (int h = 0; h < plan->handoff_count; h++) {
        const vd_handoff *hand = &plan->handoffs[h];
        int pair = hand->from * d->count + hand->to;
        if (d->connected[pair])
            continue;
        vd_device *from = d->opened[hand->from], *to = d->opened[hand->to];
        VD_TRY(d->backend->table->connect(d->backend, from, to, d->p2p, &d->routes[pair], err));
        d->connected[pair] = true;
        tell_route(d, &d->routes[pair], from->name, to->name);
    }
    return VD_OK;
}
