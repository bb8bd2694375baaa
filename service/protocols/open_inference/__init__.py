"""The Open Inference Protocol, version 2, as KServe and Triton speak it over HTTP; without any transport.

framing      where the JSON ends and the bytes of the tensors begin
document     the JSON part as values: quickly where it is usual, thoroughly where it is not
asking       what such a document asks of the model
tensors      the instances of its one input
writing      outputs into an answer
contract     all of these together, for one model
documents    what server and models say about themselves
"""
