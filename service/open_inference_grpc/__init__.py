"""The Open Inference Protocol over gRPC, beside HTTP in the same event loop: `foldserve[grpc]`.

messages     the protocol's messages, from the descriptors that are generated from the `.proto` files here
reading      what a message asks of the model, in the words of the protocol over HTTP
tensors      the instances of a message's one input
writing      outputs into a message
contract     these together, for one model
catalog      what the server has to know of its models, beyond predicting
answering    the calls that are answered from the catalog
inferring    the one call that is answered by a model
statuses     from our answers' statuses to gRPC's
server       all calls on one port

Only `server` and what it stands on need grpcio; nothing here is loaded where gRPC is not wanted.
"""
