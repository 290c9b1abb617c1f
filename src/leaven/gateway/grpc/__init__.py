"""The Open Inference Protocol over gRPC, in front of the same core as over HTTP; needs `pip install 'leaven[grpc]'`."""
