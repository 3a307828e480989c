/* Spare CPUs make programs ready side by side: a backend shares the items of a program among all threads
 * that ask for it at the same time (device.h), so a crew only has to ask for the same programs. It changes
 * when things are ready, never what they are; its own failures are left to the thread that needs the
 * program, which meets them too. */
#ifndef VD_ENGINE_CREW_H
#define VD_ENGINE_CREW_H

#include "base/thread.h"
#include "engine/run.h"

enum { VD_CREW_MAX = 7 };

typedef enum vd_crew_work { VD_CREW_COMPILES, VD_CREW_LOADS } vd_crew_work;

typedef struct vd_crew_member {
    vd_run *run;
    vd_crew_work work;
    vd_thread thread;
    vd_compiled *held[VD_ROLE_COUNT]; /* compiled programs, kept alive until the crew is dismissed */
} vd_crew_member;

typedef struct vd_crew {
    vd_crew_member members[VD_CREW_MAX];
    int count;
} vd_crew;

/* One member for each CPU beyond the caller's. Programs must exist; for loading they must be compiled. */
void vd_crew_start(vd_crew *crew, vd_run *run, vd_crew_work work);
void vd_crew_dismiss(vd_crew *crew); /* waits for its members */

#endif
