"""The public API: protobuf on one side, the log and the store on the other."""
