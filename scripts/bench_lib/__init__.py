"""What `scripts/bench` is made of; standard library only, and nothing of hammerfs itself.

peers -- how each file system is made, mounted and unmounted, and where its server is
measure -- one repetition on one mount: clocks, the server's CPU time and memory, remounts
metadata, data, durable, programs, history -- the workloads
report -- medians and ratios as a Markdown table
main -- arguments, and the order in which peers take turns
"""
