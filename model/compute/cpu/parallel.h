// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_PARALLEL_H
#define SPLITLLM_PARALLEL_H

#include <cstddef>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace splitllm
{

/// The cores that this process may use; 1 without OpenMP.
inline std::size_t
AvailableCores()
{
#ifdef _OPENMP
    return static_cast<std::size_t>(omp_get_num_procs());
#else
    return 1;
#endif
}

/**
 * Calls body(thread, team) once on each of up to \p threads threads, team being how many there are. Without OpenMP, or
 * for one thread, that is body(0, 1). \p body must not throw.
 */
template <typename Body>
void
Parallel(std::size_t threads, const Body& body)
{
#ifdef _OPENMP
    if (threads > 1)
    {
#pragma omp parallel num_threads(static_cast<int>(threads))
        body(static_cast<std::size_t>(omp_get_thread_num()), static_cast<std::size_t>(omp_get_num_threads()));
        return;
    }
#endif
    body(std::size_t{0}, std::size_t{1});
}

} // namespace splitllm

#endif // SPLITLLM_PARALLEL_H
