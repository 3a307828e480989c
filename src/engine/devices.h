/* The devices of an engine: chosen from what the options say and what the machine has, opened through their
 * backend, and connected pair by pair as plans need it. */
#ifndef VD_ENGINE_DEVICES_H
#define VD_ENGINE_DEVICES_H

#include "device/backend.h"
#include "schedule/plan.h"
#include "vdpp.h"

enum { VD_MAX_DEVICES = 64 };

typedef struct vd_devices {
    const vd_log *log;
    vd_backend *backend;
    vd_device *opened[VD_MAX_DEVICES]; /* the backend's own */
    vd_device *at[VD_MAX_DEVICES];     /* what runs: the same, or what a test has put before them */
    int ordinals[VD_MAX_DEVICES];
    int nodes[VD_MAX_DEVICES]; /* NUMA nodes; -1: unknown, or nothing to be near to */
    int count;
    vd_p2p p2p;
    vd_route_info *routes; /* [count * count], from * count + to; filled where `connected` says so */
    bool *connected;
} vd_devices;

/* Opens what `options` mean. */
vd_code vd_devices_open(const vdpp_options *options, const vd_log *log, vd_devices *out, vd_error *err);
void vd_devices_close(vd_devices *d); /* zeroed is fine */

/* Tests every way between devices that the plan uses and that no plan before used, and tells of those that
 * copies cannot go straight. */
vd_code vd_devices_connect(vd_devices *d, const vd_plan *plan, vd_error *err);

/* Chooses `wanted` of `count` devices and their order so that neighbours lie on different NUMA nodes as
 * seldom as can be: few nodes, one after another. `nodes[i]` is that of device i. */
void vd_order_devices(const int *nodes, int count, int wanted, int *chosen);

#endif
