/* The fork-join team: each job once on each member, ranges cover every index once, nesting runs
 * serially, more members than cores still end. */
#include "../test.h"

#include <stdatomic.h>

#include "base/alloc.h"
#include "base/threads.h"

static pvl_team *team_of(int members) {
    pvl_team *team = NULL;
    pvl_error err = {0};
    test_check(pvl_team_start(&team, &pvl_libc_allocator, members, &err) == PVL_OK, __FILE__,
               __LINE__, "%s", err.message);
    return team;
}

typedef struct counters {
    _Atomic int calls[PVL_MAX_THREADS];
    int total; /* plain: the join must order it */
} counters;

static void count_call(void *arg, int member) {
    atomic_fetch_add(&((counters *)arg)->calls[member], 1);
}

TEST(each_member_once) {
    for (int members = 0; members <= 8; members++) {
        pvl_team *team = team_of(members);
        int size = pvl_team_size(team);
        CHECK(size >= 1 && size <= (members < 1 ? 1 : members));
        for (int i = 0; i < 300; i++) {
            counters c = {0};
            pvl_team_run(team, count_call, &c);
            for (int m = 0; m < PVL_MAX_THREADS; m++)
                CHECK_EQ_INT(c.calls[m], m < size);
        }
        pvl_team_stop(team);
    }
}

TEST(limits) {
    pvl_team *team = team_of(1000);
    CHECK(pvl_team_size(team) <= PVL_MAX_THREADS);
    pvl_team_stop(team);
    CHECK_EQ_INT(pvl_team_size(NULL), 1);
    pvl_team_stop(NULL);
}

typedef struct marks {
    unsigned char seen[1000];
    _Atomic int calls;
    size_t grain;
} marks;

static void mark(void *arg, size_t begin, size_t end, int member) {
    marks *m = arg;
    (void)member;
    atomic_fetch_add(&m->calls, 1);
    for (size_t i = begin; i < end; i++)
        m->seen[i]++;
}

TEST(ranges_cover_once) {
    for (int members = 1; members <= 4; members++) {
        pvl_team *team = team_of(members);
        for (size_t count = 0; count <= 1000; count += count < 10 ? 1 : 123) {
            for (size_t grain = 0; grain < 40; grain += 13) {
                marks m = {.grain = grain};
                pvl_parallel_for(team, count, grain, mark, &m);
                for (size_t i = 0; i < 1000; i++)
                    CHECK(m.seen[i] == (i < count));
                CHECK(count > 0 || m.calls == 0);
            }
        }
        pvl_team_stop(team);
    }
}

typedef struct nest {
    pvl_team *team;
    counters inner;
    _Atomic int outer;
} nest;

static void nested(void *arg, int member) {
    nest *n = arg;
    atomic_fetch_add(&n->outer, 1);
    if (member == 0)
        pvl_team_run(n->team, count_call, &n->inner);
}

TEST(nested_run_is_serial) {
    nest n = {.team = team_of(3)};
    for (int i = 0; i < 100; i++)
        pvl_team_run(n.team, nested, &n);
    CHECK_EQ_INT(n.outer, 100 * pvl_team_size(n.team));
    CHECK_EQ_INT(n.inner.calls[0], 100);
    CHECK_EQ_INT(n.inner.calls[1], 0);
    pvl_team_stop(n.team);
}

static void add_one(void *arg, int member) {
    counters *c = arg;
    if (member == 0)
        c->total++;
    else
        atomic_fetch_add(&c->calls[member], 1);
}

TEST(many_joins) {
    pvl_team *team = team_of(2);
    counters c = {0};
    for (int i = 0; i < 20000; i++)
        pvl_team_run(team, add_one, &c);
    CHECK_EQ_INT(c.total, 20000);
    if (pvl_team_size(team) == 2)
        CHECK_EQ_INT(c.calls[1], 20000);
    pvl_team_stop(team);
}

typedef struct behind {
    marks seen;
    counters calls;
    int size; /* of the team that did the work */
    int total;
} behind;

static void work_behind(void *arg, pvl_team *others) {
    behind *b = arg;
    b->size = pvl_team_size(others);
    pvl_parallel_for(others, 1000, 7, mark, &b->seen);
    pvl_team_run(others, count_call, &b->calls);
    b->total++;
}

/* The caller's own work meanwhile is serial, and the whole team is back after the wait. */
TEST(work_behind_the_caller) {
    for (int members = 1; members <= 5; members++) {
        pvl_team *team = team_of(members);
        int size = pvl_team_size(team), others = size > 1 ? size - 1 : 1;
        for (int i = 0; i < 500; i++) {
            behind b = {.total = i};
            counters own = {0}, all = {0};
            pvl_team_behind(team, work_behind, &b);
            if (i % 3)
                pvl_team_run(team, count_call, &own);
            pvl_team_wait(team);
            CHECK_EQ_INT(own.calls[0], i % 3 != 0);
            CHECK_EQ_INT(own.calls[1], 0);
            CHECK_EQ_INT(b.total, i + 1);
            CHECK_EQ_INT(b.size, others);
            for (size_t k = 0; k < 1000; k++)
                CHECK(b.seen.seen[k] == 1);
            for (int m = 0; m < PVL_MAX_THREADS; m++)
                CHECK_EQ_INT(b.calls.calls[m], m < others);
            if (i % 2)
                pvl_team_run(team, count_call, &all);
            for (int m = 0; m < PVL_MAX_THREADS; m++)
                CHECK_EQ_INT(all.calls[m], i % 2 && m < size);
        }
        pvl_team_wait(team); /* nothing to wait for */
        behind last = {0};
        pvl_team_behind(team, work_behind, &last);
        pvl_team_stop(team); /* waits as well */
        CHECK_EQ_INT(last.total, 1);
    }
    behind alone = {0};
    pvl_team_behind(NULL, work_behind, &alone);
    CHECK_EQ_INT(alone.total, 1);
    pvl_team_wait(NULL);
}

TEST_MAIN(CASE(each_member_once), CASE(limits), CASE(ranges_cover_once), CASE(nested_run_is_serial),
          CASE(many_joins), CASE(work_behind_the_caller))
