#include "sim/task.h"
#include <cstdio>
using namespace splitllm;
int calls=0;
Task<int> A(int v){calls++; co_return v;}
Task<void> F(int&o){ bool on=o<0; if (on && co_await A(1) > 0) {o=1;} else {o=0;} o+=10;}int main(){ int o=-1; {Process p(F(o),[](std::exception_ptr){std::printf("end ");}); p.Start();} std::printf("o=%d calls=%d live=%zd\n",o,calls,(ssize_t)FramePool::Live()); }