"""A learner of several processes. Rank 0 is the learner that others know; the other ranks have no API and follow it.

Rank 0 broadcasts commands through the rendezvous as JSON: open a stage, load its checkpoint, train a step. Every rank
runs the command on its own copy of the models, which it fetched from the store itself, and the ranks sum up what they
computed. Nothing is pickled. The rendezvous is torch's key-value server: it knows no password and no TLS, so its port
and the ports between the ranks belong in a closed network.

Two rules keep the ranks from waiting for each other forever. Every collective operation begins with a barrier, to which
a rank that had to stop brings its error, and all ranks stop with it: a fenced step leaves the group ready for the next
session. And a rank that sends no heartbeats is lost: then every process of the group ends, and whatever started the
processes starts them again; the job goes on from its last checkpoint, as after the loss of any learner.
"""
