/* An edge between two devices: slots in the receiver's memory, tickets that name them, and the way back.
 *
 * DESIGN
 *   tickets   ring, pushed by the sender's stage, popped by the receiver's: {sample, slot}. Pushed after
 *             the event that follows the copy has been recorded, so a wait enqueued by the receiver always
 *             finds it recorded.
 *   slots     owned by the receiver. The sender's copy stream waits for `freed` before it writes one; the
 *             receiver's compute stream waits for `copied` before it reads.
 *   free      ring back: the receiver returns a slot once its last read is enqueued and `freed` recorded
 *             behind it.
 *   order     first in, first out: the plan must send between a pair in the order in which the other side
 *             takes.
 *   shutdown  closing both rings makes either side return. */
#ifndef VD_ENGINE_LINK_H
#define VD_ENGINE_LINK_H

#include "base/ring.h"
#include "device/device.h"

enum { VD_LINK_SLOTS = 2 };

typedef struct vd_ticket {
    int sample, slot;
} vd_ticket;

struct vd_link {
    vd_device *from, *to;
    vd_ring tickets, free_slots;
    unsigned char *slots[VD_LINK_SLOTS]; /* state blocks on `to` */
    vd_event *copied[VD_LINK_SLOTS];     /* recorded by the sender's copy stream */
    vd_event *freed[VD_LINK_SLOTS];      /* recorded by the receiver's compute stream */
};
typedef struct vd_link vd_link;

vd_code vd_link_open(vd_device *from, vd_device *to, size_t state_bytes, vd_link **out, vd_error *err);
void vd_link_shut(vd_link *link);  /* from any thread: both sides return */
void vd_link_close(vd_link *link); /* after both stages ended; NULL is fine */

#endif
