"""What is wrong with a detector, as pages that open in any browser without a network: `page.write_report`."""
