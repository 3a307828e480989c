#include "media/jpeg.h"

#include <string.h>

vd_code vd_jpeg_define_huffman(vd_jpeg_huffman *table, const uint8_t *counts, const uint8_t *symbols,
                               vd_error *err) {
    *table = (vd_jpeg_huffman){.defined = true};
    uint32_t code = 0;
    int total = 0;
    for (int length = 1; length <= 16; length++) {
        table->first[length] = total - (int)code;
        code += counts[length - 1];
        total += counts[length - 1];
        if (code > 1u << length)
            return vd_fail(err, VD_ERR_DATA, "a Huffman table has more codes of %d bits than there can be",
                           length);
        table->limit[length] = code << (16 - length);
        code <<= 1;
    }
    memcpy(table->symbols, symbols, (size_t)total);
    return VD_OK;
}

/* Faults are remembered, so that the walk reads as straight code: the first one wins, reading goes on with
 * zeros and the walk looks once per block. */
typedef enum fault { FAULT_NONE, FAULT_SHORT, FAULT_CODE, FAULT_RANGE, FAULT_RESTART } fault;

typedef struct reader {
    const uint8_t *at, *end;
    uint64_t window; /* unread bits at the top */
    int have;
    bool at_marker; /* nothing more before the next marker or the end */
    enum fault fault;
} reader;

typedef struct walk {
    vd_jpeg *jpeg;
    const vd_jpeg_scan_header *scan;
    reader in;
    int end_of_band; /* blocks that still have no further coefficients (T.81 G.1.2.2) */
} walk;

static void set_fault(reader *r, fault f) {
    if (r->fault == FAULT_NONE)
        r->fault = f;
}

/* FF 00 is the byte FF, further FFs before it are fill; FF and anything else is a marker. */
static void fill(reader *r) {
    while (r->have <= 56 && !r->at_marker) {
        const uint8_t *next = r->at;
        if (next < r->end && *next == 0xff) {
            while (next < r->end && *next == 0xff)
                next++;
            r->at_marker = next == r->end || *next != 0;
        } else {
            r->at_marker = next == r->end;
        }
        if (r->at_marker)
            return;
        uint64_t byte = *r->at;
        r->window |= byte << (56 - r->have);
        r->have += 8;
        r->at = next + 1;
    }
}

static uint32_t take_bits(reader *r, int count) {
    if (count == 0)
        return 0;
    if (r->have < count)
        fill(r);
    if (r->have < count) {
        set_fault(r, FAULT_SHORT);
        return 0;
    }
    uint32_t bits = (uint32_t)(r->window >> (64 - count));
    r->window <<= count;
    r->have -= count;
    return bits;
}

static int take_symbol(reader *r, const vd_jpeg_huffman *table) {
    if (r->have < 16)
        fill(r);
    uint32_t next = (uint32_t)(r->window >> 48);
    for (int length = 1; length <= 16; length++) {
        if (next >= table->limit[length])
            continue;
        if (length > r->have)
            break;
        take_bits(r, length);
        return table->symbols[(int)(next >> (16 - length)) + table->first[length]];
    }
    set_fault(r, r->have < 16 ? FAULT_SHORT : FAULT_CODE);
    return 0;
}

/* A signed value of `count` bits (T.81 F.2.2.1, EXTEND). */
static int take_value(reader *r, int count) {
    int bits = (int)take_bits(r, count);
    return count == 0 || bits >> (count - 1) ? bits : bits - (1 << count) + 1;
}

static void walk_dc_first(walk *w, vd_jpeg_component *c, const vd_jpeg_huffman *table) {
    int count = take_symbol(&w->in, table);
    if (count > 15) {
        set_fault(&w->in, FAULT_CODE);
        return;
    }
    c->prediction += take_value(&w->in, count);
    /* The decoder keeps coefficients in 16 bits. */
    int largest = INT16_MAX >> w->scan->low;
    if (c->prediction < -largest || c->prediction > largest)
        set_fault(&w->in, FAULT_RANGE);
}

static void walk_ac_sequential(walk *w, const vd_jpeg_huffman *table) {
    for (int k = 1; k < 64 && w->in.fault == FAULT_NONE; k++) {
        int symbol = take_symbol(&w->in, table), run = symbol >> 4, size = symbol & 15;
        if (size == 0 && run < 15)
            return;
        k += run;
        if (size > 0 && k > 63)
            set_fault(&w->in, FAULT_CODE);
        take_bits(&w->in, size);
    }
}

static void start_end_of_band(walk *w, int run) {
    w->end_of_band = (1 << run) + (int)take_bits(&w->in, run);
}

static void walk_ac_first(walk *w, uint64_t *nonzero, const vd_jpeg_huffman *table) {
    for (int k = w->scan->first; k <= w->scan->last && w->end_of_band == 0 && w->in.fault == FAULT_NONE;
         k++) {
        int symbol = take_symbol(&w->in, table), run = symbol >> 4, size = symbol & 15;
        if (size == 0 && run < 15) {
            start_end_of_band(w, run);
            break;
        }
        k += run;
        if (size == 0)
            continue;
        if (k > w->scan->last)
            set_fault(&w->in, FAULT_CODE);
        else if (size + w->scan->low > 15)
            set_fault(&w->in, FAULT_RANGE);
        else
            *nonzero |= 1ull << k;
        take_bits(&w->in, size);
    }
    w->end_of_band -= w->end_of_band > 0;
}

/* Corrects the known coefficients from `k` on, passing `zeros` that stay zero; returns where it stopped: at
 * the next zero or behind the band. */
static int correct_known(walk *w, uint64_t nonzero, int k, int zeros) {
    for (; k <= w->scan->last; k++) {
        if (nonzero >> k & 1)
            take_bits(&w->in, 1);
        else if (zeros-- == 0)
            break;
    }
    return k;
}

static void walk_ac_refine(walk *w, uint64_t *nonzero, const vd_jpeg_huffman *table) {
    int k = w->scan->first;
    while (k <= w->scan->last && w->end_of_band == 0 && w->in.fault == FAULT_NONE) {
        int symbol = take_symbol(&w->in, table), run = symbol >> 4, size = symbol & 15;
        if (size == 0 && run < 15) {
            start_end_of_band(w, run);
            break;
        }
        if (size > 1)
            set_fault(&w->in, FAULT_CODE);
        take_bits(&w->in, size); /* the sign */
        k = correct_known(w, *nonzero, k, run);
        if (size > 0 && k <= w->scan->last)
            *nonzero |= 1ull << k;
        k++;
    }
    if (w->end_of_band > 0) {
        correct_known(w, *nonzero, k, 64);
        w->end_of_band--;
    }
}

static void walk_block(walk *w, int part, int x, int y) {
    const vd_jpeg_scan_header *s = w->scan;
    vd_jpeg_component *c = s->parts[part].component;
    if (s->first == 0 && s->high == 0)
        walk_dc_first(w, c, s->parts[part].dc);
    else if (s->first == 0)
        take_bits(&w->in, 1);
    if (!w->jpeg->progressive)
        walk_ac_sequential(w, s->parts[part].ac);
    else if (s->first > 0)
        (s->high == 0 ? walk_ac_first : walk_ac_refine)(w, &c->nonzero[(int64_t)y * c->stride + x],
                                                        s->parts[part].ac);
}

static void walk_mcu(walk *w, int x, int y) {
    if (w->scan->count == 1) {
        walk_block(w, 0, x, y);
        return;
    }
    for (int part = 0; part < w->scan->count; part++) {
        const vd_jpeg_component *c = w->scan->parts[part].component;
        for (int v = 0; v < c->v; v++)
            for (int h = 0; h < c->h; h++)
                walk_block(w, part, x * c->h + h, y * c->v + v);
    }
}

/* Only padding bits may stand before the marker RSTn, and n counts from 0 to 7. */
static void restart(walk *w, int number) {
    reader *r = &w->in;
    fill(r);
    const uint8_t *next = r->at;
    while (next < r->end && *next == 0xff)
        next++;
    if (r->have >= 8 || next >= r->end || *next != 0xd0 + (number & 7)) {
        set_fault(r, next >= r->end ? FAULT_SHORT : FAULT_RESTART);
        return;
    }
    *r = (reader){.at = next + 1, .end = r->end, .fault = r->fault};
    w->end_of_band = 0;
    for (int part = 0; part < w->scan->count; part++)
        w->scan->parts[part].component->prediction = 0;
}

static vd_code report(fault f, int64_t done, int64_t all, vd_error *err) {
    static const char *const reasons[] = {[FAULT_SHORT] = "its coded picture data ends too early",
                                          [FAULT_CODE] = "its coded picture data holds an invalid code",
                                          [FAULT_RANGE] = "a coefficient is out of range",
                                          [FAULT_RESTART] = "a restart marker is missing or out of order"};
    return vd_fail(err, VD_ERR_DATA, "it is damaged: %s (unit %lld of %lld of a scan)", reasons[f],
                   (long long)done, (long long)all);
}

vd_code vd_jpeg_walk(vd_jpeg *jpeg, const vd_jpeg_scan_header *scan, const uint8_t **at, const uint8_t *end,
                     vd_error *err) {
    walk w = {.jpeg = jpeg, .scan = scan, .in = {.at = *at, .end = end}};
    const vd_jpeg_component *alone = scan->parts[0].component;
    int mcus_x = scan->count == 1 ? alone->blocks_x : jpeg->mcus_x;
    int mcus_y = scan->count == 1 ? alone->blocks_y : jpeg->mcus_y;
    int64_t all = (int64_t)mcus_x * mcus_y;
    for (int part = 0; part < scan->count; part++)
        scan->parts[part].component->prediction = 0;
    for (int64_t i = 0; i < all; i++) {
        if (i > 0 && jpeg->restart_interval > 0 && i % jpeg->restart_interval == 0)
            restart(&w, (int)(i / jpeg->restart_interval - 1));
        walk_mcu(&w, (int)(i % mcus_x), (int)(i / mcus_x));
        if (w.in.fault != FAULT_NONE)
            return report(w.in.fault, i, all, err);
    }
    *at = w.in.at;
    return VD_OK;
}
