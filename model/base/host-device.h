// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_HOST_DEVICE_H
#define SPLITLLM_HOST_DEVICE_H

/// Before an inline function that a GPU may call as well.
#ifdef __CUDACC__
#define SPLITLLM_HOST_DEVICE __host__ __device__
#else
#define SPLITLLM_HOST_DEVICE
#endif

#endif // SPLITLLM_HOST_DEVICE_H
