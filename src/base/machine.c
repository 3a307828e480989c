#include "base/machine.h"

#include <stdio.h>
#include <string.h>

char *vd_machine_model(char *out, size_t cap) {
    char line[256], model[160] = "unknown CPU";
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "model name : %159[^\n]", model) == 1)
            break;
    if (f)
        fclose(f);
    snprintf(out, cap, "%s", model);
    return out;
}

/* First number after `key` in a small text file of the kernel, times `unit`; 0 when it is not there. */
static size_t read_kernel_number(const char *path, const char *key, size_t unit) {
    char line[256];
    unsigned long long value = 0;
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), "%llu", &value) == 1)
            break;
    fclose(f);
    return (size_t)value * unit;
}

static size_t smaller_known(size_t a, size_t b) {
    if (a == 0 || b == 0)
        return a + b;
    return a < b ? a : b;
}

static size_t group_limit(void) {
    return read_kernel_number("/sys/fs/cgroup/memory.max", "", 1);
}

size_t vd_machine_memory(void) {
    return smaller_known(read_kernel_number("/proc/meminfo", "MemTotal:", 1024), group_limit());
}

size_t vd_machine_available(void) {
    size_t machine = read_kernel_number("/proc/meminfo", "MemAvailable:", 1024), limit = group_limit();
    size_t used = read_kernel_number("/sys/fs/cgroup/memory.current", "", 1);
    return smaller_known(machine, limit > used ? limit - used : 0);
}

size_t vd_process_resident(void) {
    return read_kernel_number("/proc/self/status", "VmRSS:", 1024);
}
