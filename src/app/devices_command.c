#include "app/commands.h"

#include "app/hardware.h"
#include "base/text.h"
#include "base/thread.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* The devices of the machine and, between GPUs, the ways as the start-up test of a run finds them. */
typedef struct inventory {
    vd_hardware hardware;
    vd_device_info info[VD_DEVICE_LIMIT];
    vd_device *open[VD_DEVICE_LIMIT];
    vd_route_info *ways; /* [count * count], from * count + to */
    int count;
} inventory;

static vd_code test_ways(inventory *v, vd_p2p wish, vd_error *err) {
    vd_backend *b = v->hardware.backend;
    for (int i = 0; i < v->count; i++)
        for (int k = 0; k < v->count; k++)
            if (i != k)
                VD_TRY(b->table->connect(b, v->open[i], v->open[k], wish, &v->ways[i * v->count + k], err));
    return VD_OK;
}

static vd_code describe_all(inventory *v, vd_error *err) {
    const vd_backend *b = v->hardware.backend;
    for (int i = 0; i < v->count; i++)
        VD_TRY(b->table->describe(b, i, &v->info[i], err));
    return VD_OK;
}

static vd_code take_inventory(const vd_options *o, inventory *v, vd_error *err) {
    int ordinals[VD_DEVICE_LIMIT], there;
    vd_p2p wish;
    VD_TRY(vd_p2p_parse(o->p2p, &wish, err));
    VD_TRY(vd_hardware_open(o, &v->hardware, err));
    vd_backend *b = v->hardware.backend;
    there = v->hardware.gpus ? b->table->count(b) : 1;
    there = there < VD_DEVICE_LIMIT ? there : VD_DEVICE_LIMIT;
    if (!(v->ways = calloc((size_t)(there * there), sizeof *v->ways)))
        return vd_fail_memory(err, "the ways between devices", (size_t)(there * there) * sizeof *v->ways);
    for (int i = 0; i < there; i++)
        ordinals[i] = i;
    VD_TRY(b->table->open(b, ordinals, there, v->open, err));
    v->count = there;
    VD_TRY(describe_all(v, err));
    return test_ways(v, wish, err);
}

static void close_inventory(inventory *v) {
    for (int i = 0; i < v->count; i++)
        v->open[i]->table->close(v->open[i]);
    vd_hardware_close(&v->hardware);
    free(v->ways);
}

static const char *verdict_of(const vd_route_info *way) {
    return way->damaged ? "damaged" : vd_route_name(way->route);
}

/* ---- as text ---- */

static void print_devices(const inventory *v, FILE *out) {
    fprintf(out, "%-8s %-34s %-14s %5s %10s %10s\n", "device", "model", "bus", "node", "memory", "free");
    for (int i = 0; i < v->count; i++) {
        const vd_device_info *d = &v->info[i];
        char memory[32], left[32], node[16] = "-";
        if (d->node >= 0)
            snprintf(node, sizeof node, "%d", d->node);
        fprintf(out, "%-8s %-34s %-14s %5s %10s %10s\n", d->name, d->model, d->bus[0] ? d->bus : "-", node,
                vd_human_bytes(memory, sizeof memory, d->memory), vd_human_bytes(left, sizeof left, d->free));
    }
}

static void print_ways(const inventory *v, FILE *out) {
    bool worse = false;
    fprintf(out, "\n%-10s", "from \\ to");
    for (int k = 0; k < v->count; k++)
        fprintf(out, " %26s", v->info[k].name);
    for (int i = 0; i < v->count; i++) {
        fprintf(out, "\n%-10s", v->info[i].name);
        for (int k = 0; k < v->count; k++) {
            const vd_route_info *way = &v->ways[i * v->count + k];
            char cell[48] = "-";
            if (i != k)
                snprintf(cell, sizeof cell, "%s %.1f GB/s %.0f us", verdict_of(way), 1e-9 * way->bytes_per_s,
                         1e6 * way->latency_s);
            worse |= i != k && way->route == VD_ROUTE_STAGED;
            fprintf(out, " %26s", cell);
        }
    }
    fprintf(out, "\n\npeer: straight from GPU to GPU, bit by bit as sent.\n");
    if (worse)
        fprintf(
            out,
            "staged: through host memory, for want of peer access. damaged: peer copies arrived wrong, so "
            "through host\nmemory; an IOMMU that translates (iommu=pt cures it) or ACS is the usual "
            "cause.\n");
}

static vd_code print_text(const inventory *v, FILE *out) {
    print_devices(v, out);
    if (v->count > 1)
        print_ways(v, out);
    if (!v->hardware.gpus)
        fprintf(out, "\nVirtual devices run on this processor's %d CPUs, as many of them as --gpus says.\n",
                vd_cpu_count());
    return VD_OK;
}

/* ---- as JSON ---- */

static json_t *device_value(const vd_device_info *d) {
    json_t *node = d->node >= 0 ? json_integer(d->node) : json_null();
    return json_pack("{s:s s:s s:s* s:o s:I s:I}", "name", d->name, "model", d->model, "bus",
                     d->bus[0] ? d->bus : NULL, "node", node, "memory_bytes", (json_int_t)d->memory,
                     "free_bytes", (json_int_t)d->free);
}

static json_t *way_value(const inventory *v, int from, int to) {
    const vd_route_info *way = &v->ways[from * v->count + to];
    return json_pack("{s:s s:s s:b s:s s:f s:f}", "from", v->info[from].name, "to", v->info[to].name,
                     "reachable", way->reachable, "verdict", verdict_of(way), "bytes_per_s", way->bytes_per_s,
                     "latency_s", way->latency_s);
}

static vd_code print_json(const inventory *v, FILE *out, vd_error *err) {
    json_t *devices = json_array(), *links = json_array();
    for (int i = 0; i < v->count; i++)
        json_array_append_new(devices, device_value(&v->info[i]));
    for (int i = 0; i < v->count; i++)
        for (int k = 0; k < v->count; k++)
            if (i != k)
                json_array_append_new(links, way_value(v, i, k));
    json_t *whole =
        json_pack("{s:s s:o s:o}", "kind", v->hardware.backend->kind, "devices", devices, "links", links);
    char *text = whole ? json_dumps(whole, JSON_INDENT(2)) : NULL;
    if (text)
        fprintf(out, "%s\n", text);
    free(text);
    json_decref(whole);
    return text ? VD_OK : vd_fail_memory(err, "the list of devices", (size_t)v->count * 256);
}

vd_code vd_devices_command(const vd_options *o, FILE *out, vd_error *err) {
    inventory v = {.count = 0};
    bool json = o->text_format && strcmp(o->text_format, "json") == 0;
    vd_code code = take_inventory(o, &v, err);
    if (code == VD_OK && v.hardware.why_not[0])
        fprintf(stderr, "no GPU: %s\n", v.hardware.why_not);
    if (code == VD_OK)
        code = json ? print_json(&v, out, err) : print_text(&v, out);
    close_inventory(&v);
    return code;
}
