#include "engine/crew.h"

#include "engine/stage.h"

#include <stdio.h>

static void compile_all(vd_crew_member *m, vd_error *left_to_others) {
    vd_device *d = m->run->devices[0];
    for (int r = 0; r < VD_ROLE_COUNT; r++)
        if (m->run->programs[r])
            d->table->compile(d, m->run->programs[r], &m->held[r], left_to_others);
}

/* What each stage uses, on its device: where devices share their weights, the second asks in vain. */
static void load_all(const vd_run *run, vd_error *left_to_others) {
    for (int i = 0; i < run->plan->devices; i++)
        for (int r = 0; r < VD_ROLE_COUNT; r++)
            if (run->stages[i]->uses[r])
                run->devices[i]->table->load(run->devices[i], run->compiled[r], left_to_others);
}

static void *member_main(void *argument) {
    vd_crew_member *m = argument;
    vd_error left_to_others;
    if (m->work == VD_CREW_LOADS)
        load_all(m->run, &left_to_others);
    else
        compile_all(m, &left_to_others);
    return NULL;
}

void vd_crew_start(vd_crew *crew, vd_run *run, vd_crew_work work) {
    int spare = vd_cpu_count() - 1;
    vd_error fewer_then;
    *crew = (vd_crew){.count = spare < VD_CREW_MAX ? spare : VD_CREW_MAX};
    for (int i = 0; i < crew->count; i++) {
        char name[24]; /* cut to 15 characters */
        snprintf(name, sizeof name, "vd-crew%d", i);
        crew->members[i].run = run;
        crew->members[i].work = work;
        vd_thread_start(&crew->members[i].thread, name, VD_ANY_CPU, member_main, &crew->members[i],
                        &fewer_then);
    }
}

void vd_crew_dismiss(vd_crew *crew) {
    for (int i = 0; i < crew->count; i++) {
        vd_crew_member *m = &crew->members[i];
        vd_thread_join(&m->thread);
        for (int r = 0; r < VD_ROLE_COUNT; r++)
            if (m->held[r])
                m->run->devices[0]->table->compiled_close(m->run->devices[0], m->held[r]);
    }
}
