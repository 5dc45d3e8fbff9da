"""The parts of `scripts/fuzz`: hostile images, made and looked at.

geometry -- big-blocks of 128 KiB, for speed; loaded before anything else of hammerfs
bases -- the sound images that hostile ones are made from; atlas -- where everything in them is
layout, image -- fields of structures; raw changes, and checksums made right afterwards
changes, generate -- programs that make an image hostile; programs at random
oracle -- what counts as a failure, and the devices and limits that notice it
walks, session -- what is done with an image, for reading and for writing
campaign -- image after image; shrinking and replaying failures
coverage -- the same, guided by the coverage of hammerfs' code
main -- arguments and printing
"""
