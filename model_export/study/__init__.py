"""The study: whether Batch Normalization does what its authors found, on data that one can look at.

plan       which trials each claim needs; a trial is a value, and claims share equal ones
conduct    runs what the results file does not hold yet, in one process a core
claims     from outcomes to numbers, a verdict, a chart and a table
page       the report
"""
