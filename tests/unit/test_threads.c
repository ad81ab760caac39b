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

TEST_MAIN(CASE(each_member_once), CASE(limits), CASE(ranges_cover_once), CASE(nested_run_is_serial),
          CASE(many_joins))
