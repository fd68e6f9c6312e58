// A supervised child in C++11: the C interface with owners that close by themselves.
//
//     c++ -std=c++11 child.cpp -o child $(pkg-config --cflags --libs multus) -pthread
//
// child TURNS: works that many turns of 10 ms; without a number 100.

#include <multus.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

class Lane {
public:
    explicit Lane(multus_lane_t *lane) : lane_(lane, multus_lane_close) {}
    void beat() { multus_lane_beat(lane_.get()); }

private:
    std::unique_ptr<multus_lane_t, void (*)(multus_lane_t *)> lane_;
};

class Heartbeat {
public:
    Heartbeat() : multus_(multus_open(), multus_close) {}
    bool is_supervised() const { return multus_is_supervised(multus_.get()) != 0; }
    void beat() { multus_beat(multus_.get()); }
    void ready() { multus_ready(multus_.get()); }

    Lane lane(const std::string &name, std::chrono::nanoseconds deadline)
    {
        multus_lane_t *lane = multus_lane_open(multus_.get(), name.c_str(), static_cast<uint64_t>(deadline.count()));
        if (lane == nullptr)
            throw std::runtime_error(multus_error(multus_.get()));
        return Lane(lane);
    }

private:
    std::unique_ptr<multus_t, void (*)(multus_t *)> multus_;
};

void turn()
{
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

} // namespace

int main(int argc, char **argv)
{
    const long turns = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 100;
    Heartbeat heartbeat;
    std::cout << (heartbeat.is_supervised() ? "supervised" : "not supervised") << std::endl;

    std::thread poller([turns](Lane lane) {
        for (long n = 0; n < turns; n++) {
            turn();
            lane.beat();
        }
    }, heartbeat.lane("poller", std::chrono::milliseconds(100)));

    heartbeat.ready();
    for (long n = 0; n < turns; n++) {
        turn();
        heartbeat.beat();
    }
    poller.join();
    return 0;
}
