/* A fork-join team: the caller is member 0, the others spin for a bounded time, then sleep.
 *
 * A NULL team, a team of one, and a call from inside a job run serially on the caller. Work is
 * split by output, never by the order of a sum, so any number of members gives the same bits. One
 * thread calls in at a time. */
#ifndef PVL_BASE_THREADS_H
#define PVL_BASE_THREADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { PVL_MAX_THREADS = 16 };

/* A flag that another thread, or JavaScript, may set at any time; NULL is never set. */
static inline bool pvl_flag_is_set(const volatile int32_t *flag) {
    return flag && __atomic_load_n(flag, __ATOMIC_RELAXED) != 0;
}
static inline void pvl_flag_set(volatile int32_t *flag, int32_t value) {
    __atomic_store_n(flag, value, __ATOMIC_RELAXED);
}

typedef struct pvl_team pvl_team;

/* Starts members-1 threads (fewer if the system refuses some; pvl_team_size tells). *out is NULL
 * for members <= 1. */
pvl_status pvl_team_start(pvl_team **out, const pvl_allocator *a, int members, pvl_error *err);
/* Members including the caller; 1 for NULL. */
int pvl_team_size(const pvl_team *team);
/* Stops and joins. NULL is fine. */
void pvl_team_stop(pvl_team *team);

/* Calls job(arg, member) once on each member and returns when all are done. member is 0..size-1. */
typedef void (*pvl_team_job)(void *arg, int member);
void pvl_team_run(pvl_team *team, pvl_team_job job, void *arg);

/* Parallel `for i in 0..count-1`: chunks of `grain` indices are handed out from a shared counter,
 * so uneven cores stay busy. task(arg, begin, end, member). */
typedef void (*pvl_range_task)(void *arg, size_t begin, size_t end, int member);
void pvl_parallel_for(pvl_team *team, size_t count, size_t grain, pvl_range_task task, void *arg);

/* Work behind the caller: it runs on another member, with all members but the caller as its team,
 * and the call returns at once. Until pvl_team_wait has returned the team itself serves nobody
 * else: what is run with it runs serially. Where there is no other member the work is done before
 * the call returns, with a team of NULL. */
typedef void (*pvl_team_work)(void *arg, pvl_team *others);
void pvl_team_behind(pvl_team *team, pvl_team_work work, void *arg);
/* Returns when the work behind is done, at once where there is none; meanwhile the caller takes its
 * share of that work's ranges, as member `pvl_team_size(others)`. NULL is fine. */
void pvl_team_wait(pvl_team *team);

#endif
