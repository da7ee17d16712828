// SPDX-License-Identifier: GPL-2.0-only
#include "support/catch.h"
#include "support/gpu.h"
#include "tensor/cuda/device-tensor.h"

#include <numeric>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

TEST_CASE("A tensor on the GPU comes here when it is asked for, and stays there as long as nobody changes it", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto stream = std::make_shared<CudaStream>();
    std::vector<float> values(3 * 5);
    std::iota(values.begin(), values.end(), 1.0F);
    Tensor tensor = OnDevice(3, 5, DeviceArray<float>(stream, values));
    const Tensor copy = tensor;
    CHECK(copy.Row(2)[4] == 15.0F);
    CHECK(copy.Device() != nullptr);
    tensor.Row(0)[0] = 7.0F;
    CHECK(tensor.Device() == nullptr);
    CHECK(copy.Row(0)[0] == 1.0F);
    CHECK(tensor.Row(2)[4] == 15.0F);
    tensor.Append(copy);
    CHECK(tensor.Rows() == 6);
    CHECK(tensor.Row(3)[0] == 1.0F);
}
