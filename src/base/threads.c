#include "base/threads.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/alloc.h"

/* Spinning covers the serial gaps between two products (tens of microseconds) and the imbalance of
 * a job; waking a sleeper costs about 100 us. Turns, not time: some 200 us on current processors.
 * The thread sanitizer's build takes less: there a turn is slow, and sleeping is to be seen.
 */
#ifdef PVL_SPIN
enum { SPIN = PVL_SPIN };
#else
enum { SPIN = 8000 };
#endif

/* One turn of spinning: some 70 cycles that leave nearly all of the core to its other hardware
 * thread, where the members' work may be running. WebAssembly has no pause instruction; a chain of
 * square roots waits for itself. */
static void pause_briefly(void) {
    volatile double seed = 2;
    double x = seed;
    x = sqrt(sqrt(sqrt(sqrt(x))));
    seed = x;
}

struct member {
    pvl_team *team;
    int index;
    pthread_t thread;
};

struct range_job {
    _Atomic size_t next;
    size_t count, grain;
    pvl_range_task task;
    void *arg;
};

struct pvl_team {
    /* Each on its own cache line: members spin on epoch while others count down left. */
    _Alignas(64) _Atomic uint32_t epoch;
    _Alignas(64) _Atomic uint32_t asleep;
    _Alignas(64) _Atomic uint32_t left;
    _Alignas(64) _Atomic uint32_t caller_asleep;
    /* Of a team of `others`, below: the ranges that a waiting caller may take a share of, and how
     * many do. */
    _Alignas(64) _Atomic(struct range_job *) open;
    _Atomic uint32_t guests;
    _Alignas(64) pvl_team_job job;
    void *arg;
    int members;
    bool stop, running, behind, lent;
    /* For work behind the caller: the members 1.. as a team of their own, and its epoch before the
     * work began. */
    pvl_team *others;
    uint32_t others_epoch;
    pvl_team_work work;
    void *work_arg;
    const pvl_allocator *allocator;
#ifndef __EMSCRIPTEN__
    pthread_mutex_t mutex;
    pthread_cond_t changed;
#endif
    struct member member[PVL_MAX_THREADS];
};

#ifdef __EMSCRIPTEN__
/* The raw wasm instructions: the Emscripten futex and condition variables cost the same or more. */
static void wait_on(_Atomic uint32_t *word, uint32_t value) {
    __builtin_wasm_memory_atomic_wait32((int *)word, (int)value, -1);
}

/* A wait has to be alone in its function, and volatile keeps every optimizer from inlining it: in
 * the baseline code of Node.js 20 a function that goes on after a wait may find its locals spoiled,
 * and the member sleeps for ever. */
static void (*const volatile wait_alone)(_Atomic uint32_t *word, uint32_t value) = wait_on;

static void sleep_on(pvl_team *team, _Atomic uint32_t *word, uint32_t value) {
    (void)team;
    wait_alone(word, value);
}

static void wake_all(pvl_team *team, _Atomic uint32_t *word) {
    (void)team;
    __builtin_wasm_memory_atomic_notify((int *)word, ~0u);
}
#else
static void sleep_on(pvl_team *team, _Atomic uint32_t *word, uint32_t value) {
    pthread_mutex_lock(&team->mutex);
    while (atomic_load(word) == value)
        pthread_cond_wait(&team->changed, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}

static void wake_all(pvl_team *team, _Atomic uint32_t *word) {
    (void)word;
    pthread_mutex_lock(&team->mutex);
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->mutex);
}
#endif

/* What a member does: jobs, until the team is stopped. `seen`: the last epoch before its first. */
static void serve(pvl_team *team, int index, uint32_t seen) {
    for (;; seen++) {
        int spin = SPIN;
        for (; spin && atomic_load_explicit(&team->epoch, memory_order_acquire) == seen; spin--)
            pause_briefly();
        if (!spin) {
            atomic_fetch_add(&team->asleep, 1);
            while (atomic_load(&team->epoch) == seen)
                sleep_on(team, &team->epoch, seen);
            atomic_fetch_sub(&team->asleep, 1);
        }
        if (team->stop)
            return;
        team->job(team->arg, index);
        if (atomic_fetch_sub(&team->left, 1) == 1 && atomic_load(&team->caller_asleep)) {
            wake_all(team, &team->left);
        }
    }
}

static void *member_main(void *p) {
    struct member *self = p;
    serve(self->team, self->index, 0);
    return NULL;
}

static void start_epoch(pvl_team *team) {
    atomic_fetch_add(&team->epoch, 1);
    if (atomic_load(&team->asleep))
        wake_all(team, &team->epoch);
}

static pvl_status team_new(pvl_team **out, const pvl_allocator *a, pvl_error *err) {
    void *p;
    PVL_TRY(pvl_calloc(a, &p, 1, sizeof(pvl_team), "the thread team", err));
    pvl_team *team = p;
    team->allocator = a;
    team->members = 1;
#ifndef __EMSCRIPTEN__
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->changed, NULL);
#endif
    *out = team;
    return PVL_OK;
}

static void team_free(pvl_team *team) {
#ifndef __EMSCRIPTEN__
    pthread_cond_destroy(&team->changed);
    pthread_mutex_destroy(&team->mutex);
#endif
    pvl_free(team->allocator, team);
}

pvl_status pvl_team_start(pvl_team **out, const pvl_allocator *a, int members, pvl_error *err) {
    *out = NULL;
    if (members > PVL_MAX_THREADS)
        members = PVL_MAX_THREADS;
    if (members <= 1)
        return PVL_OK;
    pvl_team *team, *others;
    PVL_TRY(team_new(&team, a, err));
    pvl_status status = team_new(&others, a, err);
    if (status != PVL_OK) {
        team_free(team);
        return status;
    }
    for (int i = 1; i < members; i++) {
        team->member[i] = (struct member){.team = team, .index = i};
        /* Fewer threads than asked for is not an error: the work is the same. */
        if (pthread_create(&team->member[i].thread, NULL, member_main, &team->member[i]))
            break;
        team->members++;
    }
    others->members = team->members > 1 ? team->members - 1 : 1;
    others->lent = true;
    team->others = others;
    *out = team;
    return PVL_OK;
}

int pvl_team_size(const pvl_team *team) {
    return team ? team->members : 1;
}

/* The other members begin with the job. */
static void fork_job(pvl_team *team, pvl_team_job job, void *arg) {
    team->running = true;
    team->job = job;
    team->arg = arg;
    atomic_store(&team->left, (uint32_t)team->members - 1);
    start_epoch(team);
}

static void range_member(void *p, int member) {
    struct range_job *job = p;
    for (;;) {
        size_t begin = atomic_fetch_add_explicit(&job->next, job->grain, memory_order_relaxed);
        if (begin >= job->count)
            return;
        size_t rest = job->count - begin;
        job->task(job->arg, begin, begin + (rest < job->grain ? rest : job->grain), member);
    }
}

/* A share of the ranges that are open to guests; false where none are. Being counted first keeps
 * the job alive. */
static bool help(pvl_team *others) {
    if (!atomic_load_explicit(&others->open, memory_order_relaxed))
        return false;
    atomic_fetch_add(&others->guests, 1);
    struct range_job *job = atomic_load(&others->open);
    if (job)
        range_member(job, others->members);
    atomic_fetch_sub(&others->guests, 1);
    return job != NULL;
}

/* They are done with it. */
static void join_job(pvl_team *team) {
    int spin = SPIN;
    while (spin && atomic_load_explicit(&team->left, memory_order_acquire)) {
        if (team->behind && help(team->others)) {
            spin = SPIN;
        } else {
            pause_briefly();
            spin--;
        }
    }
    if (!spin) {
        atomic_store(&team->caller_asleep, 1);
        for (uint32_t n; (n = atomic_load(&team->left)) != 0;)
            sleep_on(team, &team->left, n);
        atomic_store(&team->caller_asleep, 0);
    }
    team->running = false;
}

void pvl_team_stop(pvl_team *team) {
    if (!team)
        return;
    pvl_team_wait(team);
    team->stop = true;
    start_epoch(team);
    for (int i = 1; i < team->members; i++)
        pthread_join(team->member[i].thread, NULL);
    team_free(team->others);
    team_free(team);
}

void pvl_team_run(pvl_team *team, pvl_team_job job, void *arg) {
    if (!team || team->members == 1 || team->running) {
        job(arg, 0);
        return;
    }
    fork_job(team, job, arg);
    job(arg, 0);
    join_job(team);
}

/* Member 1 does the work; the members behind it serve it until it has ended. */
static void behind_member(void *arg, int member) {
    pvl_team *team = arg, *others = team->others;
    if (member > 1) {
        serve(others, member - 1, team->others_epoch);
        return;
    }
    team->work(team->work_arg, others);
    others->stop = true;
    start_epoch(others);
}

void pvl_team_behind(pvl_team *team, pvl_team_work work, void *arg) {
    if (!team || team->members == 1 || team->running) {
        work(arg, NULL);
        return;
    }
    team->others->stop = false;
    team->others_epoch = atomic_load(&team->others->epoch);
    team->work = work;
    team->work_arg = arg;
    team->behind = true;
    fork_job(team, behind_member, team);
}

void pvl_team_wait(pvl_team *team) {
    if (!team || !team->behind)
        return;
    join_job(team);
    team->behind = false;
}

void pvl_parallel_for(pvl_team *team, size_t count, size_t grain, pvl_range_task task, void *arg) {
    if (count == 0)
        return;
    if (grain == 0)
        grain = 1;
    if (!team || (team->members == 1 && !team->lent) || team->running || count <= grain) {
        task(arg, 0, count, 0);
        return;
    }
    struct range_job job = {.count = count, .grain = grain, .task = task, .arg = arg};
    if (team->lent)
        atomic_store(&team->open, &job);
    pvl_team_run(team, range_member, &job);
    if (team->lent) {
        atomic_store(&team->open, NULL);
        while (atomic_load(&team->guests))
            pause_briefly();
    }
}
