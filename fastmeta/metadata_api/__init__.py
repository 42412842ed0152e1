"""The embedded metadata API: answers in Nova's place, for the demo, labs, tests and benches.

``instances`` reads the YAML file, ``application`` holds Nova's checks and trees and knows no sockets,
``server`` speaks HTTP and knows no metadata.
"""
