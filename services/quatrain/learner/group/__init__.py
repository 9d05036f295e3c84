"""A learner of several processes. Rank 0 is the learner that others know; the other ranks have no API and follow it.

What rank 0 wants done goes through the rendezvous as JSON: open a stage, load its checkpoint, train a step. Every rank
then does it on its own copy of the models, fetched from the store by itself, and they add up what they computed.
Nothing is pickled. The rendezvous is torch's key-value server: it knows no password and no TLS, so its port and those
between the ranks belong in a closed network.

Two rules keep the ranks from waiting for each other for ever. Whatever is added up begins with a meeting, to which a
rank that had to stop comes with its error, and all stop with it: a fenced step leaves the group ready for the next
session. And a rank that says nothing more is lost: then every process of the group ends, and whoever started them
starts them again; the job goes on from its last checkpoint, as after the loss of any learner.
"""
